// A depthwise convolution fused with its neighbours in the network: the problem as Python describes it, and what the
// kernels of one instruction set work on. No full-resolution map between the steps is ever stored.
#pragma once

#include <cstdint>

#include "products.hpp"

// What the convolution is fused with. Channels-last maps are (batch, depth, height, width, channels).
enum Surroundings : int64_t {
    PLAIN,  // from map to map
    STEM,   // pointwise layer first: image (batch, point_channels, depth, height, width) to map
    HEAD,   // map (batch, map_depth, map_height, map_width, channels), interpolated to (depth, height, width),
            // convolved; pointwise layer last, to (batch, point_channels, depth, height, width)
};

// Mirrored field by field in backends/native_interface.py; 2D images and pointers as in RvmProblem.
struct DepthwiseProblem {
    int64_t surroundings, batch, depth, height, width, channels, kernel_height, is_double;
    int64_t point_channels, map_depth, map_height, map_width;
    const void *conv_weight, *conv_bias;    // (channels, 1, 3, [3,] 3), (channels)
    const void *point_weight, *point_bias;  // STEM: (channels, point_channels); HEAD: (point_channels, channels)
    const void *in, *grad_out;
    void *out, *grad_in;
    void *grad_conv_weight, *grad_conv_bias, *grad_point_weight, *grad_point_bias;
};

// One entry of the batch for the kernels.
template <class T>
struct DepthwiseImage {
    int64_t surroundings, depth, height, width, channels, kernel_height, point_channels;
    int64_t map_depth, map_height, map_width;
    const T *conv_weight, *conv_weight_back, *conv_bias;  // (taps, channels); _back: taps reversed
    const T *point_weight, *point_bias;                   // STEM: (point_channels, channels)
    Weights<T> point, point_back;                         // HEAD
    const T *in, *grad_out;
    T *out, *grad_in;
};

// One task's buffers: rows in rings, and its sums.
template <class T>
struct DepthwiseTask {
    int64_t first_row, last_row, ring_rows;
    T *ring, *grad_ring;  // (ring_rows, width, channels): the convolution's input, and the gradient of its output
    T *row, *point_row;   // (width, channels), (width, point channels in whole vectors)
    T* map_rows;          // (map_width, channels)
    T* grad_map;          // HEAD: (map planes the rows touch, map_height, map_width, channels)
    int64_t first_map_plane;
    T *grad_conv_weight, *grad_conv_bias, *grad_point_weight, *grad_point_bias;
};

template <class T>
struct DepthwiseKernels {
    int64_t lanes;
    void (*forward)(const DepthwiseImage<T>&, const DepthwiseTask<T>&);
    void (*backward)(const DepthwiseImage<T>&, const DepthwiseTask<T>&);
};

// Halo: rows of the image that the convolution needs before and after a row. A plane and a row in 3D.
inline int64_t halo_rows_of(int64_t kernel_height, int64_t height) { return kernel_height == 1 ? 1 : height + 1; }
