// What the forward and the backward pass of an RVM layer share: sizes, laid-out weights, buffers, and the steps from a
// layer's input to its scan's output.
#pragma once

#include "arena.hpp"
#include "parallel.hpp"
#include "scan.hpp"

// The rows of the image in slabs; a slab's buffers fit in the cache, and its tokens keep the threads busy. Those of the
// backward pass are many, so that slabs are smaller in training; they must be the same in both passes.
struct Slabs {
    int64_t rows, slab_rows, reach, chunks;  // reach: rows that the convolution sees behind and ahead

    Slabs(const RvmProblem& p, bool training) : rows(p.depth * p.height), reach(reach_of(p.kernel_height, p.height)) {
        const int64_t tokens = std::clamp<int64_t>((training ? 1 << 16 : 1 << 17) / p.inner, 256, 4096);
        slab_rows = std::clamp<int64_t>(tokens / p.width, 1, rows);
        chunks = divided_up(slab_rows * p.width, CHUNK);
    }
    int64_t count() const { return divided_up(rows, slab_rows); }
};

template <class T>
class RvmLayer {
protected:
    RvmLayer(const RvmProblem& problem, const RvmKernels<T>& kernels, const InstructionSet& set, int64_t threads)
        : p(problem), k(kernels), set(set), threads(std::max<int64_t>(threads, 1)), slabs(problem, problem.checkpoints) {
        s.height = p.height, s.rows = slabs.rows, s.width = p.width;
        s.channels = p.channels, s.inner = p.inner, s.out_channels = p.out_channels;
        s.states = p.states, s.rank = p.rank, s.kernel_height = p.kernel_height;
        s.matrix_stride = whole_vectors(2 * p.states) + whole_vectors(p.rank);
        s.ring_rows = std::min(slabs.rows, slabs.slab_rows + 2 * slabs.reach);
        for (int64_t i = 0; i < PARAMETERS; ++i) s.parameter[i] = static_cast<const T*>(p.parameter[i]);

        const int64_t C = p.channels, E = p.inner, R = p.rank;
        arena.reserve(ring, s.ring_rows * p.width * E);
        arena.reserve(s.conv, tokens() * E);
        arena.reserve(s.matrices, tokens() * s.matrix_stride);
        arena.reserve(s.y, tokens() * E);
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
        s.ring = ring;
        s.conv_weight = conv_weight;
    }

    int64_t whole_vectors(int64_t count) const { return divided_up(count, k.lanes) * k.lanes; }
    int64_t taps() const { return 9 * p.kernel_height; }
    int64_t tokens() const { return slabs.slab_rows * p.width; }
    // The row of x_proj's weight for a column of `matrices`.
    int64_t matrix_row(int64_t column) const {
        return column < 2 * p.states ? p.rank + column : column - 2 * p.states;
    }

    // Shares f(first, last, index of the group, workspace) among the threads, for groups of first ... last - 1.
    template <class F>
    void in_groups(int64_t first, int64_t last, int64_t group, F f) {
        parallel_for(divided_up(last - first, group), threads, [&](int64_t i, int64_t worker) {
            [[maybe_unused]] const DenormalsAreZero<T> mode;
            f(first + i * group, std::min(first + (i + 1) * group, last), i, workspaces + worker * workspace_count);
        });
    }
    template <class F>
    void rows_in_groups(int64_t first, int64_t last, F f) {
        in_groups(first, last, row_group(), f);
    }
    int64_t row_group() const { return divided_up(TOKEN_GROUP, p.width); }

    void start_image(int64_t batch) {
        s.x = static_cast<const T*>(p.x) + batch * s.rows * s.width * s.channels;
        pooling = {p.depth, p.height, p.width, p.out_channels, {p.pool_depth, p.pool_height, p.pool_width}, {}, {}};
        const int64_t at = batch * (p.depth / p.pool_depth) * (p.height / p.pool_height) * (p.width / p.pool_width) *
                           p.out_channels;
        pooling.pooled = static_cast<T*>(p.grad_out ? const_cast<void*>(p.grad_out) : p.out) + at;
        pooling.argmax = p.argmax ? p.argmax + at : nullptr;
    }
    bool pooled() const { return p.pool_depth * p.pool_height * p.pool_width > 1; }

    void project(int64_t first_row, int64_t last_row) {
        rows_in_groups(first_row, last_row, [&](int64_t first, int64_t last, int64_t, T* workspace) {
            k.project_rows(s, first, last, workspace);
        });
    }

    void convolve(int64_t first_row, int64_t last_row) {
        rows_in_groups(first_row, last_row,
                       [&](int64_t first, int64_t last, int64_t, T*) { k.convolve_rows(s, first, last); });
    }

    // The scan of the slab.
    ScanProblem scan_of(int64_t batch, int64_t slab, int64_t rows) const {
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
                               (batch * slabs.count() + slab) * slabs.chunks * p.states * p.inner;
        return scan;
    }

    const RvmProblem& p;
    const RvmKernels<T>& k;
    const InstructionSet& set;
    const int64_t threads;
    const Slabs slabs;
    RvmSlab<T> s{};
    RvmPooling<T> pooling{};
    Arena arena;
    T *ring, *conv_weight, *dt_weight, *state, *workspaces;
    int64_t workspace_count;
};
