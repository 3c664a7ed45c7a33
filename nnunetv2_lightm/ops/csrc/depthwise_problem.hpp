// A depthwise convolution with what stands before and behind it in the network: what Python describes, and what the
// kernels of one instruction set work on. A full-resolution map between two steps is never stored.
#pragma once

#include <cstdint>

#include "products.hpp"

// What surrounds the convolution. Channels-last maps are (batch, depth, height, width, channels).
enum Surroundings : int64_t {
    PLAIN,  // from map to map
    STEM,   // from an image (batch, point_channels, depth, height, width) through a pointwise layer; to a map
    HEAD,   // from a map (batch, map_depth, map_height, map_width, channels), interpolated to depth, height, width; then
            // through a pointwise layer to (batch, point_channels, depth, height, width)
};

// Mirrored field by field in backends/native_library.py; 2D images and pointers as in RvmProblem.
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
    const T *conv_weight, *conv_weight_back, *conv_bias;  // (taps, channels), reversed
    const T *point_weight, *point_bias;                   // STEM: (point_channels, channels)
    Weights<T> point, point_back;                         // HEAD
    const T *in, *grad_out;
    T *out, *grad_in;
};

// What one task keeps: rows in rings, and its sums.
template <class T>
struct DepthwiseTask {
    int64_t first_row, last_row, ring_rows;
    T *ring, *grad_ring;  // (ring_rows, width, channels): before the convolution, and gradients of its output
    T *row, *point_row;   // (width, channels), (width, point channels in whole vectors)
    T* map_rows;          // (map_width, channels)
    T *grad_map;          // HEAD: (map planes that the rows touch, map_height, map_width, channels)
    int64_t first_map_plane;
    T *grad_conv_weight, *grad_conv_bias, *grad_point_weight, *grad_point_bias;
};

template <class T>
struct DepthwiseKernels {
    int64_t lanes;
    void (*forward)(const DepthwiseImage<T>&, const DepthwiseTask<T>&);
    void (*backward)(const DepthwiseImage<T>&, const DepthwiseTask<T>&);
};

// Rows of the image that the convolution sees behind and ahead of one.
inline int64_t reach_of(int64_t kernel_height, int64_t height) { return kernel_height == 1 ? 1 : height + 1; }
