// Products of small matrices whose columns fill whole vectors: activations times weights, and the weights' gradients,
// sums over tokens.
#pragma once

#include "products.hpp"
#include "vector_math.hpp"

namespace {

// Rows of a tile; with two vectors of columns, its sums fill most registers. WebAssembly's compilers keep each row's
// factor in one too: with six rows they spill, and take half as long again.
#if defined(__wasm__)
constexpr int64_t TILE_ROWS = 4;
#else
constexpr int64_t TILE_ROWS = VECTOR_BYTES == 64 ? 12 : 6;
#endif

// to[i, j] (+)= sum over k of a[i, k] b[k, j], for ROWS rows and VECTORS vectors of columns.
template <class T, int64_t ROWS, int64_t VECTORS>
void multiply_tile(const Product<T>& p, const T* a, const T* b, T* to) {
    Vec<T> sums[ROWS][VECTORS] = {};
    for (int64_t k = 0; k < p.depth; ++k, a += p.a_depth_stride, b += p.b_depth_stride) {
        Vec<T> columns[VECTORS];
#pragma GCC unroll 2
        for (int64_t j = 0; j < VECTORS; ++j) columns[j] = load(b + j * LANES<T>, LANES<T>);
#pragma GCC unroll 12
        for (int64_t i = 0; i < ROWS; ++i) {
            const T factor = a[i * p.a_row_stride];
#pragma GCC unroll 2
            for (int64_t j = 0; j < VECTORS; ++j) sums[i][j] += columns[j] * factor;
        }
    }
#pragma GCC unroll 12
    for (int64_t i = 0; i < ROWS; ++i)
#pragma GCC unroll 2
        for (int64_t j = 0; j < VECTORS; ++j) {
            T* target = to + i * p.to_row_stride + j * LANES<T>;
            store(target, p.add ? load(target, LANES<T>) + sums[i][j] : sums[i][j], LANES<T>);
        }
}

template <class T, int64_t ROWS, int64_t VECTORS>
INLINE int64_t multiply_tiles(const Product<T>& p, int64_t row, const T* b, T* to) {
    for (; row + ROWS <= p.rows; row += ROWS)
        multiply_tile<T, ROWS, VECTORS>(p, p.a + row * p.a_row_stride, b, to + row * p.to_row_stride);
    return row;
}

template <class T, int64_t VECTORS>
INLINE void multiply_panel(const Product<T>& p, const T* b, T* to) {
    int64_t row = multiply_tiles<T, TILE_ROWS, VECTORS>(p, 0, b, to);
    if (TILE_ROWS > 8) row = multiply_tiles<T, 8, VECTORS>(p, row, b, to);
    row = multiply_tiles<T, 4, VECTORS>(p, row, b, to);
    row = multiply_tiles<T, 2, VECTORS>(p, row, b, to);
    multiply_tiles<T, 1, VECTORS>(p, row, b, to);
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

// Rows of activations times packed weights.
template <class T>
INLINE void multiply(const Weights<T>& weights, int64_t rows, const T* a, int64_t a_stride, T* to, int64_t to_stride,
                     bool add = false) {
    const int64_t panel = 2 * LANES<T>;
    multiply(Product<T>{rows, weights.columns, weights.depth, a, a_stride, 1, weights.panels, panel * weights.depth,
                        panel, to, to_stride, add});
}

}  // namespace
