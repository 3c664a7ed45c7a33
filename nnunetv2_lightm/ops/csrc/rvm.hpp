// One RVM layer, equations (1) to (3) of the paper: the problem as Python describes it, and what the kernels of one
// instruction set work on.
//
//     VSSM(x) = Linear(LayerNorm(SSM(SiLU(DWConv(Linear(x))))) * SiLU(Linear(x)))   (3)
//     m = VSSM(LayerNorm(x)) + scale * x                                            (1)
//     out = Projection(LayerNorm'(m))                                               (2)
//
// Rows of tokens are processed slab by slab (rvm_layer.hpp), so that everything between a layer's input and its output
// stays in the cache. Letters for sizes in rvm_*: E inner, O out_channels, N states, R rank (A, B, C, D: the scan's).
#pragma once

#include <cstdint>

#include "products.hpp"

// The parameters, in the order in which Python passes them.
// clang-format off
enum Parameter {
    NORM_IN_WEIGHT, NORM_IN_BIAS,      // (channels)
    IN_PROJ, GATE_PROJ,                // (inner, channels)
    CONV_WEIGHT, CONV_BIAS,            // (inner, 1, 3, [3,] 3), (inner)
    X_PROJ,                            // (rank + 2 states, inner)
    DT_WEIGHT, DT_BIAS,                // (inner, rank), (inner)
    A_MATRIX, SKIP,                    // (inner, states), (inner)
    NORM_WEIGHT, NORM_BIAS,            // (inner)
    OUT_PROJ,                          // (channels, inner)
    SCALE,                             // (channels)
    NORM_OUT_WEIGHT, NORM_OUT_BIAS,    // (channels)
    PROJECTION_WEIGHT, PROJECTION_BIAS,  // (out_channels, channels), (out_channels)
    PARAMETERS
};
// clang-format on

// Mirrored field by field in backends/native_interface.py. A 2D image has its height in `depth`, and height 1. All
// pointers are to contiguous float or, with is_double, double. channels, inner and out_channels are multiples of
// CHANNEL_MULTIPLE.
struct RvmProblem {
    int64_t batch, depth, height, width, channels, inner, out_channels, states, rank;
    int64_t kernel_height;                        // 3, or 1 for a 2D image
    int64_t pool_depth, pool_height, pool_width;  // max-pooling of the output; 1, 1, 1: none
    int64_t is_double;
    const void* parameter[PARAMETERS];
    const void* x;      // (batch, depth, height, width, channels)
    void* out;          // (batch, *pooled, out_channels)
    void* checkpoints;  // (batch, chunks, states, inner): written by the forward pass, read by the backward pass
    uint8_t* argmax;    // like out: index of the maximum in its pooling window; may be null
    const void* grad_out;
    void* grad_x;
    void* gradient[PARAMETERS];
};

constexpr int64_t CHANNEL_MULTIPLE = 16;

// Tokens that a task takes through all its steps together.
constexpr int64_t TOKEN_GROUP = 48;

// One entry of the batch, and the buffers of a slab. Token buffers are (tokens of the slab, channels); rings hold rows
// (width, inner), row r at position r % ring_rows.
template <class T>
struct RvmSlab {
    int64_t height, rows, width, channels, inner, out_channels, states, rank, kernel_height;
    int64_t matrix_stride;  // of the rows of `matrices` and `grad_matrices`: B, C, then low-rank delta
    const T* parameter[PARAMETERS];
    Weights<T> in_proj, gate_proj, x_proj, out_proj, projection;
    const T* conv_weight;  // (taps, inner)
    const T* x;            // (rows * width, channels)
    int64_t ring_rows;
    T* ring;  // in_proj's output

    int64_t first_row;      // of the slab
    T *before_silu, *conv;  // (tokens, inner): the convolution's output (may be null), and its SiLU
    T* matrices;            // (tokens, matrix_stride)
    T* y;                   // (tokens, inner): the scan's output; in the backward pass then its gradient
    T* out;                 // (tokens, out_channels)

    // Backward only.
    Weights<T> in_proj_back, gate_proj_back, x_proj_back, dt_back, out_proj_back, projection_back;
    const T* conv_weight_back;                           // (taps, inner), taps reversed
    const T* grad_out;                                   // (tokens, out_channels)
    T* grad_x;                                           // like x
    T* grad_ring;                                        // gradient of before_silu
    T *norm_in, *grad_gate, *gated, *grad_m, *norm_out;  // (tokens, channels or inner): factors of weights' gradients
    T *grad_conv, *grad_delta, *grad_B, *grad_C;         // from the scan
    T* grad_matrices;
    int64_t deferred_row;           // first of the rows whose in_proj goes backward now, after their halo of gradients
    T *grad_in, *deferred_norm_in;  // (tokens, inner), (tokens, channels) of these rows
};

// Sums over tokens that a task adds to: the gradients of the parameters that are vectors, one after another.
template <class T>
struct VectorSums {
    T *norm_in_weight, *norm_in_bias, *conv_bias, *norm_weight, *norm_bias, *scale, *norm_out_weight, *norm_out_bias,
        *projection_bias;

    VectorSums(T* at, int64_t channels, int64_t inner) {
        for (T** vector : {&norm_in_weight, &norm_in_bias, &scale, &norm_out_weight, &norm_out_bias})
            *vector = at, at += channels;
        for (T** vector : {&conv_bias, &norm_weight, &norm_bias}) *vector = at, at += inner;
        projection_bias = at;
    }
    static int64_t count(int64_t channels, int64_t inner, int64_t out_channels) {
        return 5 * channels + 3 * inner + out_channels;
    }
};

// Max-pooling of one entry of the batch; in the backward pass `pooled` is the gradient.
template <class T>
struct RvmPooling {
    int64_t depth, height, width, channels;
    int64_t stride[3];
    T* pooled;
    uint8_t* argmax;
};

// Rows are numbered in the image, tokens in the slab. The workspace has workspace_count() elements.
template <class T>
struct RvmKernels {
    int64_t lanes;
    int64_t (*workspace_count)(int64_t channels, int64_t inner);
    void (*project_rows)(const RvmSlab<T>&, int64_t first_row, int64_t last_row, T* workspace);
    void (*convolve_rows)(const RvmSlab<T>&, int64_t first_row, int64_t last_row);
    void (*finish_tokens)(const RvmSlab<T>&, int64_t first, int64_t last, T* workspace);
    void (*finish_tokens_backward)(const RvmSlab<T>&, int64_t first, int64_t last, VectorSums<T>&, T* workspace);
    void (*convolve_rows_backward)(const RvmSlab<T>&, int64_t first_row, int64_t last_row, VectorSums<T>&,
                                   T* workspace);
    void (*project_rows_backward)(const RvmSlab<T>&, int64_t first_row, int64_t last_row, VectorSums<T>&, T* workspace);
    // Adds a slab's contribution to grad_weight (taps, inner), for one vector of channels.
    void (*correlate_rows)(const RvmSlab<T>&, int64_t first_row, int64_t last_row, int64_t channel, T* grad_weight);
    void (*pool_rows)(const RvmPooling<T>&, const T* rows, int64_t first_row, int64_t last_row, int64_t z, int64_t y);
    void (*unpool_row)(const RvmPooling<T>&, int64_t row, T* to);
    void (*multiply)(const Product<T>&);
};
