// The steps of an RVM layer's backward pass, each for a range of rows or tokens. The slab's forward steps have run
// again before them; their results are read, not recomputed.
#pragma once

#include "pool.hpp"
#include "rvm_kernels.hpp"

namespace {

// Gradient of finish_tokens: leaves the gradient of the scan's output in y, and in grad_x the part of the residual and
// the gate.
template <class T>
void finish_tokens_backward(const RvmSlab<T>& s, int64_t first, int64_t last, VectorSums<T>& sums, T* workspace) {
    const int64_t channels = s.channels, E = s.inner, O = s.out_channels, rows = last - first;
    const int64_t token = s.first_row * s.width + first;
    const T *x = s.x + token * channels, *grad_out = s.grad_out + first * O;
    T *y = s.y + first * E, *grad_x = s.grad_x + token * channels;
    T *norm_in = s.norm_in + first * channels, *gated = s.gated + first * E, *norm_out = s.norm_out + first * channels;
    T *grad_m = s.grad_m + first * channels, *grad_gate = s.grad_gate + first * E;
    T *gate = workspace, *normed_y = gate + TOKEN_GROUP * E, *grad_wide = normed_y + TOKEN_GROUP * E;
    T *m = grad_wide + TOKEN_GROUP * E, *grad_narrow = m + TOKEN_GROUP * channels;

    // Forward again: (3), (1), and LayerNorm' of (2).
    layer_norm(x, channels, rows, channels, s.parameter[NORM_IN_WEIGHT], s.parameter[NORM_IN_BIAS], norm_in);
    multiply(s.gate_proj, rows, norm_in, channels, gate, E);
    normalise(y, E, rows, E, [&](int64_t row, int64_t c, Vec<T> value) {
        value = value * load(s.parameter[NORM_WEIGHT] + c) + load(s.parameter[NORM_BIAS] + c);
        store(normed_y + row * E + c, value);
        store(gated + row * E + c, value * silu<T>(load(gate + row * E + c)));
    });
    scale_rows(x, s.parameter[SCALE], channels, rows, m);
    multiply(s.out_proj, rows, gated, E, m, channels, true);
    layer_norm(m, channels, rows, channels, s.parameter[NORM_OUT_WEIGHT], s.parameter[NORM_OUT_BIAS], norm_out);

    // Gradient of (2), and of the residual in (1).
    add_columns(grad_out, rows, O, sums.projection_bias);
    multiply(s.projection_back, rows, grad_out, O, grad_narrow, channels);
    layer_norm_backward(m, channels, rows, channels, s.parameter[NORM_OUT_WEIGHT], grad_narrow, sums.norm_out_weight,
                        sums.norm_out_bias, [&](int64_t row, int64_t c, Vec<T> value) {
                            store(grad_m + row * channels + c, value);
                            add_to(sums.scale + c, value * load(x + row * channels + c));
                            store(grad_x + row * channels + c, value * load(s.parameter[SCALE] + c));
                        });
    // Gradient of (3): out_proj, the gate, the LayerNorm of y.
    multiply(s.out_proj_back, rows, grad_m, channels, grad_wide, E);
    for (int64_t i = 0; i < rows * E; i += LANES<T>) {
        const Vec<T> g = load(gate + i), slope = sigmoid(g), grad = load(grad_wide + i);
        store(grad_gate + i, grad * load(normed_y + i) * silu_slope<T>(g, slope));
        store(grad_wide + i, grad * g * slope);
    }
    layer_norm_backward(y, E, rows, E, s.parameter[NORM_WEIGHT], grad_wide, sums.norm_weight, sums.norm_bias,
                        [&](int64_t row, int64_t c, Vec<T> value) { store(y + row * E + c, value); });
    multiply(s.gate_proj_back, rows, grad_gate, E, grad_narrow, channels);
    layer_norm_backward(x, channels, rows, channels, s.parameter[NORM_IN_WEIGHT], grad_narrow, sums.norm_in_weight,
                        sums.norm_in_bias,
                        [&](int64_t row, int64_t c, Vec<T> value) { add_to(grad_x + row * channels + c, value); });
}

// From the scan's gradients to the gradient of the convolution's output, in the ring.
template <class T>
void convolve_rows_backward(const RvmSlab<T>& s, int64_t first_row, int64_t last_row, VectorSums<T>& sums,
                            T* workspace) {
    const int64_t E = s.inner, N = s.states;
    for_token_groups(s, s.grad_ring, first_row, last_row, [&](int64_t token, int64_t count, T* to) {
        const int64_t first = token - s.first_row * s.width;
        T* grads = s.grad_matrices + first * s.matrix_stride;
        for (int64_t i = 0; i < count; ++i) {
            memcpy(grads + i * s.matrix_stride, s.grad_B + (first + i) * N, N * sizeof(T));
            memcpy(grads + i * s.matrix_stride + N, s.grad_C + (first + i) * N, N * sizeof(T));
        }
        multiply(s.dt_back, count, s.grad_delta + first * E, E, grads + 2 * N, s.matrix_stride);
        multiply(s.x_proj_back, count, grads, s.matrix_stride, workspace, E);
        for (int64_t i = 0; i < count * E; i += LANES<T>) {
            const Vec<T> value = load(s.before_silu + first * E + i);
            const Vec<T> grad = load(workspace + i) + load(s.grad_conv + first * E + i);
            store(to + i, grad * silu_slope<T>(value, sigmoid(value)));
        }
        add_columns(to, count, E, sums.conv_bias);
    });
}

// Gradient of the convolution and of project_rows, for rows whose whole halo is in the ring of gradients; adds to
// grad_x.
template <class T>
void project_rows_backward(const RvmSlab<T>& s, int64_t first_row, int64_t last_row, VectorSums<T>& sums,
                           T* workspace) {
    const int64_t channels = s.channels, E = s.inner, first = (first_row - s.deferred_row) * s.width;
    const int64_t tokens = (last_row - first_row) * s.width;
    for (int64_t row = first_row; row < last_row; ++row) {
        T* to = s.grad_in + (row - s.deferred_row) * s.width * E;
        const Neighbours<T> near = neighbours(s, s.grad_ring, row);
        convolve_row(near.row, near.count, s.width, E, s.conv_weight_back, static_cast<const T*>(nullptr),
                     [&](int64_t x, int64_t c, Vec<T> value) { store(to + x * E + c, value); });
    }
    for (int64_t t = first; t < first + tokens; t += TOKEN_GROUP) {
        const int64_t count = first + tokens - t < TOKEN_GROUP ? first + tokens - t : TOKEN_GROUP;
        const T* x = s.x + (s.deferred_row * s.width + t) * channels;
        T* grad_x = s.grad_x + (s.deferred_row * s.width + t) * channels;
        multiply(s.in_proj_back, count, s.grad_in + t * E, E, workspace, channels);
        layer_norm(x, channels, count, channels, s.parameter[NORM_IN_WEIGHT], s.parameter[NORM_IN_BIAS],
                   s.deferred_norm_in + t * channels);
        layer_norm_backward(x, channels, count, channels, s.parameter[NORM_IN_WEIGHT], workspace, sums.norm_in_weight,
                            sums.norm_in_bias,
                            [&](int64_t i, int64_t c, Vec<T> value) { add_to(grad_x + i * channels + c, value); });
    }
}

template <class T>
void correlate_rows(const RvmSlab<T>& s, int64_t first_row, int64_t last_row, int64_t channel, T* grad_weight) {
    for (int64_t part = 0; part < s.kernel_height; ++part) {
        Vec<T> sums[9] = {};
        for (int64_t row = first_row; row < last_row; ++row) {
            const Neighbours<T> near = neighbours(s, s.ring, row);
            const T* rows[3];
            for (int64_t i = 0; i < 3; ++i)
                rows[i] = near.row[3 * part + i] ? near.row[3 * part + i] + channel : nullptr;
            correlate_row(rows, ring_row(s, s.grad_ring, row) + channel, s.width, s.inner, sums);
        }
        for (int64_t i = 0; i < 9; ++i) add_to(grad_weight + (9 * part + i) * s.inner + channel, sums[i]);
    }
}

template <class T>
void multiply_matrices(const Product<T>& product) {
    multiply(product);
}

template <class T>
constexpr RvmKernels<T> RVM_KERNELS = {LANES<T>,
                                       workspace_count<T>,
                                       project_rows<T>,
                                       convolve_rows<T>,
                                       finish_tokens<T>,
                                       finish_tokens_backward<T>,
                                       convolve_rows_backward<T>,
                                       project_rows_backward<T>,
                                       correlate_rows<T>,
                                       pool_rows<T>,
                                       unpool_row<T>,
                                       multiply_matrices<T>};

}  // namespace
