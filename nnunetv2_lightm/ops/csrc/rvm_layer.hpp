// What the forward and the backward pass of an RVM layer share: sizes, packed weights, buffers, the schedule of slabs
// on threads, and the steps from the layer's input to its scan's output.
// clang-format off
//
// The rows of an image (in 3D, those of plane after plane) are cut into slabs. A slab's convolution also needs the
// halo_rows before and after it, so in_proj's output is kept in a ring that the slabs in progress share:
//
//      rows of the image                       ring of in_proj's output, row r at position r % ring_rows
//
//          |    done     |                          +-----------------------------------+
//     -----+-------------+  - - - - - - - -         | halo before | slab | slab | halo  |
//          | halo before |  halo_rows                |             |  i   | i+1  | after |
//     first+=============+  - - - - - - - -         +-----------------------------------+
//          |   slab  i   |  slab_rows                 positions of finished rows are reused
//      last+=============+  - - - - - - - -
//          |   halo      |  halo_rows: slab i projects them, slab i + 1 finds them in the ring
//          |   after     |
//     -----+-------------+                          A slab's other buffers are its own, in a SlabContext: convolution,
//          |  to come    |                          B, C and delta, scan, output. All of them fit in the cache.
//
// The backward pass takes the slabs from last to first and has a second ring, for the gradient of the convolution's
// output. A row's input projection can go backward only when its whole halo of gradients is in that ring, so each slab
// also finishes the rows that the slab processed before it had to defer.
// clang-format on
#pragma once

#include <atomic>

#include "arena.hpp"
#include "errors.hpp"
#include "parallel.hpp"
#include "scan.hpp"

// How the rows of an image are cut into slabs whose buffers fit in the cache. The backward pass has many buffers, so
// slabs are smaller in training, in both passes, because they share the checkpoints.
struct Slabs {
    int64_t rows, slab_rows, halo_rows, chunks;  // chunks: of a slab's scan

    Slabs(const RvmProblem& p, bool training)
        : rows(p.depth * p.height), halo_rows(halo_rows_of(p.kernel_height, p.height)) {
        const int64_t tokens = std::clamp<int64_t>((training ? 1 << 15 : 1 << 16) / p.inner, 256, 4096);
        slab_rows = std::clamp<int64_t>(tokens / p.width, 1, rows);
        chunks = ceil_div(slab_rows * p.width, CHUNK);
    }
    int64_t count() const { return ceil_div(rows, slab_rows); }
};

// What a slab is processed in: its buffers and the image that it belongs to.
template <class T>
struct SlabContext {
    int64_t number;
    RvmSlab<T> s;
    RvmPooling<T> pooling;
};

// Each thread has a context and takes slab after slab through all steps in it, so that each step finds its input in the
// core's own cache. Only the scan's state and the convolution's halo pass between threads; Sequencers make a step wait
// for the preceding slabs. With too few slabs for that, or very many threads, there is a single context, and all
// threads share each of its steps.
template <class T>
class RvmLayer {
public:
    // Also the number of separate sums for the weights' gradients, which therefore do not depend on the thread count.
    static constexpr int64_t MAX_CONTEXTS = 8;

protected:
    RvmLayer(const RvmProblem& problem, const RvmKernels<T>& kernels, const InstructionSet& set, int64_t threads)
        : p(problem),
          k(kernels),
          set(set),
          threads(std::max<int64_t>(threads, 1)),
          slabs(problem, problem.checkpoints),
          contexts(slabs.count() >= 2 * threads && threads <= MAX_CONTEXTS ? this->threads : 1),
          scan_chain(ceil_div(problem.inner, kernels.lanes)) {
        s.height = p.height, s.rows = slabs.rows, s.width = p.width;
        s.channels = p.channels, s.inner = p.inner, s.out_channels = p.out_channels;
        s.states = p.states, s.rank = p.rank, s.kernel_height = p.kernel_height;
        s.matrix_stride = whole_vectors(2 * p.states) + whole_vectors(p.rank);
        s.ring_rows = std::min<int64_t>(slabs.rows, slabs.slab_rows * contexts.size() + 2 * slabs.halo_rows);
        for (int64_t i = 0; i < PARAMETERS; ++i) s.parameter[i] = static_cast<const T*>(p.parameter[i]);

        const int64_t channels = p.channels, E = p.inner, R = p.rank;
        arena.reserve(s.ring, s.ring_rows * p.width * E);
        reserve_per_context(&RvmSlab<T>::conv, tokens() * E);
        reserve_per_context(&RvmSlab<T>::matrices, tokens() * s.matrix_stride);
        reserve_per_context(&RvmSlab<T>::y, tokens() * E);
        arena.reserve(conv_weight, taps() * E);
        arena.reserve(dt_weight, R * E);
        arena.reserve(state, E * p.states);
        workspace_count = ceil_div(k.workspace_count(channels, E), 16) * 16;
        arena.reserve(workspaces, workspace_count * this->threads);
        arena.reserve(s.in_proj, E, channels, k.lanes);
        arena.reserve(s.gate_proj, E, channels, k.lanes);
        arena.reserve(s.x_proj, R + 2 * p.states, E, k.lanes);
        arena.reserve(s.out_proj, channels, E, k.lanes);
        arena.reserve(s.projection, p.out_channels, channels, k.lanes);
    }

    // One buffer for each context.
    void reserve_per_context(T* RvmSlab<T>::* buffer, int64_t count) {
        count = ceil_div(count, 16) * 16;
        arena.reserve(s.*buffer, count * contexts.size());
        per_context.push_back({buffer, count});
    }

    // Called when the derived class has reserved its buffers too.
    void prepare() {
        arena.allocate_all();
        const int64_t channels = p.channels, E = p.inner, R = p.rank;
        pack(s.in_proj, k.lanes, s.parameter[IN_PROJ], 1, channels);
        pack(s.gate_proj, k.lanes, s.parameter[GATE_PROJ], 1, channels);
        // Low-rank delta comes after B and C, so that products may write whole vectors there.
        pack(s.x_proj, k.lanes, s.parameter[X_PROJ], 1, E, [&](int64_t column) { return matrix_row(column); });
        pack(s.out_proj, k.lanes, s.parameter[OUT_PROJ], 1, E);
        pack(s.projection, k.lanes, s.parameter[PROJECTION_WEIGHT], 1, channels);
        for (int64_t e = 0; e < E; ++e) {
            for (int64_t tap = 0; tap < taps(); ++tap)
                conv_weight[tap * E + e] = s.parameter[CONV_WEIGHT][e * taps() + tap];
            for (int64_t r = 0; r < R; ++r) dt_weight[r * E + e] = s.parameter[DT_WEIGHT][e * R + r];
        }
        s.conv_weight = conv_weight;
    }

    int64_t whole_vectors(int64_t count) const { return ceil_div(count, k.lanes) * k.lanes; }
    int64_t taps() const { return 9 * p.kernel_height; }
    int64_t tokens() const { return slabs.slab_rows * p.width; }
    bool pooled() const { return p.pool_depth * p.pool_height * p.pool_width > 1; }
    // The row of x_proj's weight that yields a column of `matrices`.
    int64_t matrix_row(int64_t column) const { return column < 2 * p.states ? p.rank + column : column - 2 * p.states; }

    // Calls f(context, unit) for all slabs of all images. unit / slabs.count() is the image, unit % slabs.count() the
    // order in which its slabs are processed.
    template <class F>
    void for_slabs(F f) {
        for (SlabContext<T>& context : contexts) {
            context = {&context - contexts.data(), s, {}};
            for (const auto& [buffer, count] : per_context) context.s.*buffer += context.number * count;
        }
        const int64_t units = p.batch * slabs.count();
        std::atomic<int64_t> next{0};
        FirstError error;
        with_threads(threads, [&] {
            parallel_for(contexts.size(), threads, [&](int64_t i, int64_t) {
                const auto take_slabs = [&] {
                    for (int64_t unit = next++; unit < units; unit = next++) f(contexts[i], unit);
                };
                error.capture(take_slabs, [&] {
                    next = units;
                    for (Sequencer* sequencer : {&projections, &gradients, &ends}) sequencer->release_all();
                    for (Sequencer& sequencer : scan_chain) sequencer.release_all();
                });
            });
        });
        error.rethrow();
    }

    // Before a slab's first step: waits until the rings have room for it and hold no rows of another image.
    void start(SlabContext<T>& context, int64_t unit) {
        const int64_t image = unit / slabs.count(), order = unit % slabs.count();
        ends.wait_for(std::max(unit - order, unit - static_cast<int64_t>(contexts.size()) + 1));
        context.s.x = static_cast<const T*>(p.x) + image * s.rows * s.width * s.channels;
        RvmPooling<T>& pooling = context.pooling;
        pooling.depth = p.depth, pooling.height = p.height, pooling.width = p.width, pooling.channels = p.out_channels;
        pooling.stride[0] = p.pool_depth, pooling.stride[1] = p.pool_height, pooling.stride[2] = p.pool_width;
        const int64_t at =
            image * (p.depth / p.pool_depth) * (p.height / p.pool_height) * (p.width / p.pool_width) * p.out_channels;
        pooling.pooled = static_cast<T*>(p.grad_out ? const_cast<void*>(p.grad_out) : p.out) + at;
        pooling.argmax = p.argmax ? p.argmax + at : nullptr;
    }

    // The number of threads that share each step of a context.
    int64_t step_threads() const { return contexts.size() > 1 ? 1 : threads; }

    // Distributes f(first, last, index of the group, workspace) over the threads, for groups of first ... last - 1.
    template <class F>
    void in_groups(const SlabContext<T>& context, int64_t first, int64_t last, int64_t group, F f) {
        parallel_for(ceil_div(last - first, group), step_threads(), [&](int64_t i, int64_t worker) {
            [[maybe_unused]] const DenormalsAreZero<T> mode;
            f(first + i * group, std::min(first + (i + 1) * group, last), i,
              workspaces + (context.number + worker) * workspace_count);
        });
    }
    template <class F>
    void rows_in_groups(const SlabContext<T>& context, int64_t first, int64_t last, F f) {
        in_groups(context, first, last, row_group(), f);
    }
    int64_t row_group() const { return ceil_div(TOKEN_GROUP, p.width); }

    void project(const SlabContext<T>& context, int64_t unit, int64_t first_row, int64_t last_row) {
        rows_in_groups(context, first_row, last_row, [&](int64_t first, int64_t last, int64_t, T* workspace) {
            k.project_rows(context.s, first, last, workspace);
        });
        projections.complete(unit);
    }

    void convolve(const SlabContext<T>& context, int64_t first_row, int64_t last_row) {
        rows_in_groups(context, first_row, last_row,
                       [&](int64_t first, int64_t last, int64_t, T*) { k.convolve_rows(context.s, first, last); });
    }

    // The scan of a slab.
    ScanProblem scan_of(const SlabContext<T>& context, int64_t image, int64_t slab, int64_t rows) const {
        const RvmSlab<T>& s = context.s;
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
            scan.checkpoints =
                static_cast<T*>(p.checkpoints) + (image * slabs.count() + slab) * slabs.chunks * p.states * p.inner;
        return scan;
    }

    // Runs the slab's scan, a link in the chain of its image's scans.
    void run_chained_scan(const ScanProblem& scan, int64_t unit, bool backward) {
        contexts.size() > 1 ? run_scan(scan, set, 1, backward, {scan_chain.data(), unit})
                            : run_scan(scan, set, threads, backward);
    }

    const RvmProblem& p;
    const RvmKernels<T>& k;
    const InstructionSet& set;
    const int64_t threads;
    const Slabs slabs;
    RvmSlab<T> s{};  // what all contexts have in common
    std::vector<SlabContext<T>> contexts;
    Sequencer projections, gradients, ends;
    std::vector<Sequencer> scan_chain;  // one a block of channels
    Arena arena;
    std::vector<std::pair<T * RvmSlab<T>::*, int64_t>> per_context;
    T *conv_weight, *dt_weight, *state, *workspaces;
    int64_t workspace_count;
};
