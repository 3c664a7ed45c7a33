// The steps of an RVM layer's forward pass, each for a range of rows or tokens.
#pragma once

#include "depthwise.hpp"
#include "gemm.hpp"
#include "rows.hpp"
#include "rvm.hpp"

namespace {

template <class T>
INLINE T* ring_row(const RvmSlab<T>& s, T* ring, int64_t row) {
    return ring + row % s.ring_rows * s.width * s.inner;
}

template <class T>
INLINE Neighbours<T> neighbours(const RvmSlab<T>& s, T* ring, int64_t row) {
    return {s.rows, s.height, s.kernel_height, row, [&](int64_t near) { return ring_row(s, ring, near); }};
}

// Calls f(first token of the image, number of tokens, position in the ring) for groups of tokens of a range of rows. No
// group crosses the ring's end.
template <class T, class F>
INLINE void for_token_groups(const RvmSlab<T>& s, T* ring, int64_t first_row, int64_t last_row, F f) {
    while (first_row < last_row) {
        const int64_t until_wrap = s.ring_rows - first_row % s.ring_rows;
        const int64_t rows = last_row - first_row < until_wrap ? last_row - first_row : until_wrap;
        const int64_t first = first_row * s.width, tokens = rows * s.width;
        T* ring_place = ring_row(s, ring, first_row);
        for (int64_t t = 0; t < tokens; t += TOKEN_GROUP)
            f(first + t, tokens - t < TOKEN_GROUP ? tokens - t : TOKEN_GROUP, ring_place + t * s.inner);
        first_row += rows;
    }
}

// Equation (3), its innermost Linear, applied to LayerNorm(x) of equation (1): in_proj(LayerNorm(x)), into the ring.
template <class T>
void project_rows(const RvmSlab<T>& s, int64_t first_row, int64_t last_row, T* workspace) {
    for_token_groups(s, s.ring, first_row, last_row, [&](int64_t token, int64_t count, T* to) {
        layer_norm(s.x + token * s.channels, s.channels, count, s.channels, s.parameter[NORM_IN_WEIGHT],
                   s.parameter[NORM_IN_BIAS], workspace);
        multiply(s.in_proj, count, workspace, s.channels, to, s.inner);
    });
}

// Equation (3): SiLU(DWConv(...)) of the ring's rows, and the scan's inputs that depend on it: B, C and low-rank delta.
template <class T>
void convolve_rows(const RvmSlab<T>& s, int64_t first_row, int64_t last_row) {
    const int64_t first = (first_row - s.first_row) * s.width, count = (last_row - first_row) * s.width;
    for (int64_t row = first_row; row < last_row; ++row) {
        const int64_t at = (row - s.first_row) * s.width * s.inner;
        const Neighbours<T> near = neighbours(s, s.ring, row);
        convolve_row(near.row, near.count, s.width, s.inner, s.conv_weight, s.parameter[CONV_BIAS],
                     [&](int64_t x, int64_t c, Vec<T> value) {
                         if (s.before_silu) store(s.before_silu + at + x * s.inner + c, value);
                         store(s.conv + at + x * s.inner + c, silu<T>(value));
                     });
    }
    multiply(s.x_proj, count, s.conv + first * s.inner, s.inner, s.matrices + first * s.matrix_stride, s.matrix_stride);
}

template <class T>
INLINE void repeat_row(const T* row, int64_t channels, int64_t rows, T* to) {
    for (int64_t i = 0; i < rows; ++i) memcpy(to + i * channels, row, channels * sizeof(T));
}

// Equation (1): scale * x, to which out_proj's product is then added.
template <class T>
INLINE void scale_rows(const T* x, const T* scale, int64_t channels, int64_t rows, T* to) {
    for (int64_t i = 0; i < rows; ++i)
        for (int64_t c = 0; c < channels; c += LANES<T>)
            store(to + i * channels + c, load(x + i * channels + c) * load(scale + c));
}

// From the scan's output y to the layer's output.
template <class T>
void finish_tokens(const RvmSlab<T>& s, int64_t first, int64_t last, T* workspace) {
    const int64_t channels = s.channels, E = s.inner, O = s.out_channels, rows = last - first;
    const T *x = s.x + (s.first_row * s.width + first) * channels, *y = s.y + first * E;
    T *normed = workspace, *m = normed + TOKEN_GROUP * channels, *gate = m + TOKEN_GROUP * channels,
      *out = s.out + first * O;
    // (3): LayerNorm(y) * SiLU(gate_proj(LayerNorm(x)))
    layer_norm(x, channels, rows, channels, s.parameter[NORM_IN_WEIGHT], s.parameter[NORM_IN_BIAS], normed);
    multiply(s.gate_proj, rows, normed, channels, gate, E);
    normalise(y, E, rows, E, [&](int64_t row, int64_t c, Vec<T> value) {
        T* at = gate + row * E + c;
        value = value * load(s.parameter[NORM_WEIGHT] + c) + load(s.parameter[NORM_BIAS] + c);
        store(at, silu<T>(load(at)) * value);
    });
    // (3), (1): m = out_proj(...) + scale * x
    scale_rows(x, s.parameter[SCALE], channels, rows, m);
    multiply(s.out_proj, rows, gate, E, m, channels, true);
    // (2): Projection(LayerNorm'(m))
    layer_norm(m, channels, rows, channels, s.parameter[NORM_OUT_WEIGHT], s.parameter[NORM_OUT_BIAS], normed);
    repeat_row(s.parameter[PROJECTION_BIAS], O, rows, out);
    multiply(s.projection, rows, normed, channels, out, O, true);
}

template <class T>
int64_t workspace_count(int64_t channels, int64_t inner) {
    return TOKEN_GROUP * (2 * channels + 3 * inner);
}

}  // namespace
