// Matrices in the form that the kernels take.
#pragma once

#include <cstdint>

// to[i, j] (+)= sum over k of a[i, k] b[k, j]. The columns of b and `to` are padded to whole vectors; b is stored in
// panels of two vectors of columns.
template <class T>
struct Product {
    int64_t rows, columns, depth;
    const T* a;
    int64_t a_row_stride, a_depth_stride;
    const T* b;
    int64_t b_panel_stride, b_depth_stride;
    T* to;
    int64_t to_row_stride;
    bool add;
};

// A matrix (depth, columns) packed in panels (panel, depth, 2 vectors), zero-padded beyond its columns.
template <class T>
struct Weights {
    const T* panels;
    int64_t columns, depth;
};
