// What the forward and the backward pass of an RVM layer share: sizes, laid-out weights, buffers, how slabs are shared
// among the threads, and the steps from a layer's input to its scan's output.
#pragma once

#include <exception>

#include "arena.hpp"
#include "parallel.hpp"
#include "scan.hpp"

// The rows of the image in slabs; a slab's buffers fit in the cache. Those of the backward pass are many, so that slabs
// are smaller in training; they must be the same in both passes.
struct Slabs {
    int64_t rows, slab_rows, reach, chunks;  // reach: rows that the convolution sees behind and ahead

    Slabs(const RvmProblem& p, bool training) : rows(p.depth * p.height), reach(reach_of(p.kernel_height, p.height)) {
        const int64_t tokens = std::clamp<int64_t>((training ? 1 << 15 : 1 << 16) / p.inner, 256, 4096);
        slab_rows = std::clamp<int64_t>(tokens / p.width, 1, rows);
        chunks = divided_up(slab_rows * p.width, CHUNK);
    }
    int64_t count() const { return divided_up(rows, slab_rows); }
};

// Where a slab is worked on: the buffers of one, and the image that it is of.
template <class T>
struct Bench {
    int64_t number;
    RvmSlab<T> s;
    RvmPooling<T> pooling;
};

// Each thread has a bench, on which it takes slab after slab through all steps: then what a step leaves is in the cache
// of the core that goes on with it. Only the scan's state, and the convolution's neighbours, pass from one to another:
// steps that need what the slabs before have done wait for their turn. Where there are too few slabs for that, or very
// many threads, there is one bench, and each of its steps is shared among the threads.
template <class T>
class RvmLayer {
public:
    // Each with sums of its own for the weights' gradients, so that these do not depend on the number of threads.
    static constexpr int64_t MOST_BENCHES = 8;

protected:
    RvmLayer(const RvmProblem& problem, const RvmKernels<T>& kernels, const InstructionSet& set, int64_t threads)
        : p(problem),
          k(kernels),
          set(set),
          threads(std::max<int64_t>(threads, 1)),
          slabs(problem, problem.checkpoints),
          benches(slabs.count() >= 2 * threads && threads <= MOST_BENCHES ? this->threads : 1),
          scans(divided_up(problem.inner, kernels.lanes)) {
        s.height = p.height, s.rows = slabs.rows, s.width = p.width;
        s.channels = p.channels, s.inner = p.inner, s.out_channels = p.out_channels;
        s.states = p.states, s.rank = p.rank, s.kernel_height = p.kernel_height;
        s.matrix_stride = whole_vectors(2 * p.states) + whole_vectors(p.rank);
        s.ring_rows = std::min<int64_t>(slabs.rows, slabs.slab_rows * benches.size() + 2 * slabs.reach);
        for (int64_t i = 0; i < PARAMETERS; ++i) s.parameter[i] = static_cast<const T*>(p.parameter[i]);

        const int64_t C = p.channels, E = p.inner, R = p.rank;
        arena.reserve(s.ring, s.ring_rows * p.width * E);
        reserve_on_benches(&RvmSlab<T>::conv, tokens() * E);
        reserve_on_benches(&RvmSlab<T>::matrices, tokens() * s.matrix_stride);
        reserve_on_benches(&RvmSlab<T>::y, tokens() * E);
        arena.reserve(conv_weight, taps() * E);
        arena.reserve(dt_weight, R * E);
        arena.reserve(state, E * p.states);
        workspace_count = divided_up(k.workspace_count(C, E), 16) * 16;
        arena.reserve(workspaces, workspace_count * this->threads);
        arena.reserve(s.in_proj, E, C, k.lanes);
        arena.reserve(s.gate_proj, E, C, k.lanes);
        arena.reserve(s.x_proj, R + 2 * p.states, E, k.lanes);
        arena.reserve(s.out_proj, C, E, k.lanes);
        arena.reserve(s.projection, p.out_channels, C, k.lanes);
    }

    // A buffer for each bench.
    void reserve_on_benches(T* RvmSlab<T>::* buffer, int64_t count) {
        count = divided_up(count, 16) * 16;
        arena.reserve(s.*buffer, count * benches.size());
        of_benches.push_back({buffer, count});
    }

    // After the derived class has reserved what it needs.
    void prepare() {
        arena.allocate_all();
        const int64_t C = p.channels, E = p.inner, R = p.rank;
        lay_out(s.in_proj, k.lanes, s.parameter[IN_PROJ], 1, C);
        lay_out(s.gate_proj, k.lanes, s.parameter[GATE_PROJ], 1, C);
        // Delta's low-rank form goes behind B and C, so that products may fill whole vectors there.
        lay_out(s.x_proj, k.lanes, s.parameter[X_PROJ], 1, E, [&](int64_t column) { return matrix_row(column); });
        lay_out(s.out_proj, k.lanes, s.parameter[OUT_PROJ], 1, E);
        lay_out(s.projection, k.lanes, s.parameter[PROJECTION_WEIGHT], 1, C);
        for (int64_t e = 0; e < E; ++e) {
            for (int64_t tap = 0; tap < taps(); ++tap)
                conv_weight[tap * E + e] = s.parameter[CONV_WEIGHT][e * taps() + tap];
            for (int64_t r = 0; r < R; ++r) dt_weight[r * E + e] = s.parameter[DT_WEIGHT][e * R + r];
        }
        s.conv_weight = conv_weight;
    }

    int64_t whole_vectors(int64_t count) const { return divided_up(count, k.lanes) * k.lanes; }
    int64_t taps() const { return 9 * p.kernel_height; }
    int64_t tokens() const { return slabs.slab_rows * p.width; }
    bool pooled() const { return p.pool_depth * p.pool_height * p.pool_width > 1; }
    // The row of x_proj's weight for a column of `matrices`.
    int64_t matrix_row(int64_t column) const {
        return column < 2 * p.states ? p.rank + column : column - 2 * p.states;
    }

    // Calls f(bench, unit) for all slabs of all images: unit / slabs.count() is the image, and later slabs of an image
    // come later.
    template <class F>
    void for_slabs(F f) {
        for (Bench<T>& bench : benches) {
            bench = {&bench - benches.data(), s, {}};
            for (const auto& [buffer, count] : of_benches) bench.s.*buffer += bench.number * count;
        }
        const int64_t units = p.batch * slabs.count();
        std::atomic<int64_t> next{0};
        std::mutex mutex;
        std::exception_ptr error;
        with_threads(threads, [&] {
            parallel_for(benches.size(), threads, [&](int64_t i, int64_t) {
                try {
                    for (int64_t unit = next++; unit < units; unit = next++) f(benches[i], unit);
                } catch (...) {
                    const std::lock_guard<std::mutex> lock(mutex);
                    error = std::current_exception();
                    next = units;
                    for (Turns* turns : {&projections, &gradients, &ends}) turns->abandon();
                    for (Turns& turns : scans) turns.abandon();
                }
            });
        });
        if (error) std::rethrow_exception(error);
    }

    // Before a slab's first step: the rings have place for it, and none of another image's rows.
    void start(Bench<T>& bench, int64_t unit) {
        const int64_t image = unit / slabs.count(), place = unit % slabs.count();
        ends.wait(std::max(unit - place, unit - static_cast<int64_t>(benches.size()) + 1));
        bench.s.x = static_cast<const T*>(p.x) + image * s.rows * s.width * s.channels;
        bench.pooling = {
            p.depth, p.height, p.width, p.out_channels, {p.pool_depth, p.pool_height, p.pool_width}, {}, {}};
        const int64_t at = image * (p.depth / p.pool_depth) * (p.height / p.pool_height) * (p.width / p.pool_width) *
                           p.out_channels;
        bench.pooling.pooled = static_cast<T*>(p.grad_out ? const_cast<void*>(p.grad_out) : p.out) + at;
        bench.pooling.argmax = p.argmax ? p.argmax + at : nullptr;
    }

    // The threads that share the steps of a bench.
    int64_t sharing() const { return benches.size() > 1 ? 1 : threads; }

    // Shares f(first, last, index of the group, workspace) among the threads, for groups of first ... last - 1.
    template <class F>
    void in_groups(const Bench<T>& bench, int64_t first, int64_t last, int64_t group, F f) {
        parallel_for(divided_up(last - first, group), sharing(), [&](int64_t i, int64_t worker) {
            [[maybe_unused]] const DenormalsAreZero<T> mode;
            f(first + i * group, std::min(first + (i + 1) * group, last), i,
              workspaces + (bench.number + worker) * workspace_count);
        });
    }
    template <class F>
    void rows_in_groups(const Bench<T>& bench, int64_t first, int64_t last, F f) {
        in_groups(bench, first, last, row_group(), f);
    }
    int64_t row_group() const { return divided_up(TOKEN_GROUP, p.width); }

    void project(const Bench<T>& bench, int64_t unit, int64_t first_row, int64_t last_row) {
        rows_in_groups(bench, first_row, last_row, [&](int64_t first, int64_t last, int64_t, T* workspace) {
            k.project_rows(bench.s, first, last, workspace);
        });
        projections.pass(unit);
    }

    void convolve(const Bench<T>& bench, int64_t first_row, int64_t last_row) {
        rows_in_groups(bench, first_row, last_row,
                       [&](int64_t first, int64_t last, int64_t, T*) { k.convolve_rows(bench.s, first, last); });
    }

    // The scan of a slab.
    ScanProblem scan_of(const Bench<T>& bench, int64_t image, int64_t slab, int64_t rows) const {
        const RvmSlab<T>& s = bench.s;
        ScanProblem scan{};
        scan.batch = 1, scan.length = rows * p.width, scan.channels = p.inner, scan.states = p.states;
        scan.is_double = sizeof(T) == sizeof(double), scan.delta_softplus = 1, scan.delta_rank = p.rank;
        scan.u = {s.conv, 0, p.inner};
        scan.B = {s.matrices, 0, s.matrix_stride};
        scan.C = {s.matrices + p.states, 0, s.matrix_stride};
        scan.delta = {s.matrices + 2 * p.states, 0, s.matrix_stride};
        scan.A = p.parameter[A_MATRIX], scan.D = p.parameter[SKIP], scan.delta_bias = p.parameter[DT_BIAS];
        scan.delta_weight = dt_weight;
        if (p.checkpoints)
            scan.checkpoints = static_cast<T*>(p.checkpoints) +
                               (image * slabs.count() + slab) * slabs.chunks * p.states * p.inner;
        return scan;
    }

    // The slab's part in the scan of its image.
    void relay(const ScanProblem& scan, int64_t unit, bool backward) {
        benches.size() > 1 ? run_scan(scan, set, 1, backward, {scans.data(), unit})
                           : run_scan(scan, set, threads, backward);
    }

    const RvmProblem& p;
    const RvmKernels<T>& k;
    const InstructionSet& set;
    const int64_t threads;
    const Slabs slabs;
    RvmSlab<T> s{};  // what all benches have in common
    std::vector<Bench<T>> benches;
    Turns projections, gradients, ends;
    std::vector<Turns> scans;  // of the blocks of channels
    Arena arena;
    std::vector<std::pair<T* RvmSlab<T>::*, int64_t>> of_benches;
    T *conv_weight, *dt_weight, *state, *workspaces;
    int64_t workspace_count;
};
