// Products of small matrices whose columns fill whole vectors: activations with weights, and the sums over tokens that
// are the weights' gradients.
#pragma once

#include "products.hpp"
#include "vector_math.hpp"

namespace {

// Rows of a tile: with two vectors of columns its sums fill most of the registers.
constexpr int64_t TILE_ROWS = VECTOR_BYTES == 64 ? 12 : 6;

// to[i, j] (+)= sum over k of a[i, k] b[k, j], for M rows and V vectors of columns.
template <class T, int64_t M, int64_t V>
void multiply_tile(const Product<T>& p, const T* a, const T* b, T* to) {
    Vec<T> sums[M][V] = {};
    for (int64_t k = 0; k < p.depth; ++k, a += p.a_depth_stride, b += p.b_depth_stride) {
        Vec<T> columns[V];
#pragma GCC unroll 2
        for (int64_t j = 0; j < V; ++j) columns[j] = load(b + j * LANES<T>, LANES<T>);
#pragma GCC unroll 12
        for (int64_t i = 0; i < M; ++i) {
            const T factor = a[i * p.a_row_stride];
#pragma GCC unroll 2
            for (int64_t j = 0; j < V; ++j) sums[i][j] += columns[j] * factor;
        }
    }
#pragma GCC unroll 12
    for (int64_t i = 0; i < M; ++i)
#pragma GCC unroll 2
        for (int64_t j = 0; j < V; ++j) {
            T* place = to + i * p.to_row_stride + j * LANES<T>;
            store(place, p.add ? load(place, LANES<T>) + sums[i][j] : sums[i][j], LANES<T>);
        }
}

template <class T, int64_t M, int64_t V>
INLINE int64_t multiply_tiles(const Product<T>& p, int64_t row, const T* b, T* to) {
    for (; row + M <= p.rows; row += M)
        multiply_tile<T, M, V>(p, p.a + row * p.a_row_stride, b, to + row * p.to_row_stride);
    return row;
}

template <class T, int64_t V>
INLINE void multiply_panel(const Product<T>& p, const T* b, T* to) {
    int64_t row = multiply_tiles<T, TILE_ROWS, V>(p, 0, b, to);
    if (TILE_ROWS > 8) row = multiply_tiles<T, 8, V>(p, row, b, to);
    row = multiply_tiles<T, 4, V>(p, row, b, to);
    row = multiply_tiles<T, 2, V>(p, row, b, to);
    multiply_tiles<T, 1, V>(p, row, b, to);
}

template <class T>
INLINE void multiply(const Product<T>& p) {
    const int64_t vectors = (p.columns + LANES<T> - 1) / LANES<T>;
    for (int64_t v = 0; v < vectors; v += 2) {
        const T* b = p.b + v / 2 * p.b_panel_stride;
        T* to = p.to + v * LANES<T>;
        v + 1 < vectors ? multiply_panel<T, 2>(p, b, to) : multiply_panel<T, 1>(p, b, to);
    }
}

// Rows of activations times weights that lay_out() has laid out.
template <class T>
INLINE void multiply(const Weights<T>& weights, int64_t rows, const T* a, int64_t a_stride, T* to, int64_t to_stride,
                     bool add = false) {
    const int64_t panel = 2 * LANES<T>;
    multiply(Product<T>{rows, weights.columns, weights.depth, a, a_stride, 1, weights.panels, panel * weights.depth,
                        panel, to, to_stride, add});
}

}  // namespace
