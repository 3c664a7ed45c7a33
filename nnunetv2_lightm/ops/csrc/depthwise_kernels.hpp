// Fused depthwise convolutions over a range of rows. Each range computes the halo rows at its ends itself.
#pragma once

#include "depthwise.hpp"
#include "depthwise_problem.hpp"
#include "gemm.hpp"
#include "interpolate.hpp"

namespace {

template <class T>
INLINE MapRows<T> map_rows_of(const DepthwiseImage<T>& image, int64_t row) {
    return {row / image.height, row % image.height, image.depth, image.height, image.map_depth, image.map_height};
}

// to (width, channels) = bias + sum over the image's channels of value * weight.
template <class T>
INLINE void point_row(const DepthwiseImage<T>& image, int64_t row, T* to) {
    const int64_t channels = image.channels, plane = image.depth * image.height * image.width;
    for (int64_t x = 0; x < image.width; ++x)
        for (int64_t c = 0; c < channels; c += LANES<T>) {
            Vec<T> sum = load(image.point_bias + c);
            for (int64_t i = 0; i < image.point_channels; ++i)
                sum += load(image.point_weight + i * channels + c) * image.in[i * plane + row * image.width + x];
            store(to + x * channels + c, sum);
        }
}

// The rows of the convolution's input.
template <class T>
struct Source {
    const DepthwiseImage<T>& image;
    const DepthwiseTask<T>& task;
    int64_t ready;  // rows before this one are in the ring

    Source(const DepthwiseImage<T>& image, const DepthwiseTask<T>& task, int64_t halo_rows)
        : image(image), task(task), ready(task.first_row > halo_rows ? task.first_row - halo_rows : 0) {}

    // Computes the rows up to `row`; calls come in ascending order.
    void prepare(int64_t row) {
        if (image.surroundings == PLAIN) return;
        for (; ready <= row && ready < image.depth * image.height; ++ready) {
            T* to = ring_row(ready);
            if (image.surroundings == STEM)
                point_row(image, ready, to);
            else
                interpolate_row(image.in, map_rows_of(image, ready), image.map_width, image.width, image.channels,
                                task.map_rows, to);
        }
    }
    const T* operator()(int64_t row) const {
        return image.surroundings == PLAIN ? image.in + row * image.width * image.channels : ring_row(row);
    }

private:
    T* ring_row(int64_t row) const { return task.ring + row % task.ring_rows * image.width * image.channels; }
};

template <class T, class F>
INLINE Neighbours<T> neighbours(const DepthwiseImage<T>& image, int64_t row, const F& row_at) {
    return {image.depth * image.height, image.height, image.kernel_height, row, row_at};
}

// The convolution's output for one row.
template <class T>
INLINE void convolve(const DepthwiseImage<T>& image, const Source<T>& source, int64_t row, T* to) {
    const Neighbours<T> near = neighbours<T>(image, row, source);
    convolve_row(near.row, near.count, image.width, image.channels, image.conv_weight, image.conv_bias,
                 [&](int64_t x, int64_t c, Vec<T> value) { store(to + x * image.channels + c, value); });
}

template <class T>
INLINE int64_t point_stride(const DepthwiseImage<T>& image) {
    return (image.point_channels + LANES<T> - 1) / LANES<T> * LANES<T>;
}

template <class T>
void depthwise_forward(const DepthwiseImage<T>& image, const DepthwiseTask<T>& task) {
    const int64_t W = image.width, channels = image.channels, plane = image.depth * image.height * W;
    const int64_t halo_rows = halo_rows_of(image.kernel_height, image.height), stride = point_stride(image);
    Source<T> source(image, task, halo_rows);
    for (int64_t row = task.first_row; row < task.last_row; ++row) {
        source.prepare(row + halo_rows);
        convolve(image, source, row, image.surroundings == HEAD ? task.row : image.out + row * W * channels);
        if (image.surroundings != HEAD) continue;
        multiply(image.point, W, task.row, channels, task.point_row, stride);
        for (int64_t i = 0; i < image.point_channels; ++i)
            for (int64_t x = 0; x < W; ++x)
                image.out[i * plane + row * W + x] = task.point_row[x * stride + i] + image.point_bias[i];
    }
}

// The rows of the gradient of the convolution's output.
template <class T>
struct SourceOfGradients {
    const DepthwiseImage<T>& image;
    const DepthwiseTask<T>& task;
    int64_t ready;

    SourceOfGradients(const DepthwiseImage<T>& image, const DepthwiseTask<T>& task, int64_t halo_rows)
        : image(image), task(task), ready(task.first_row > halo_rows ? task.first_row - halo_rows : 0) {}

    void prepare(int64_t row) {
        if (image.surroundings != HEAD) return;
        for (; ready <= row && ready < image.depth * image.height; ++ready) {
            read_points(ready);
            multiply(image.point_back, image.width, task.point_row, point_stride(image), ring_row(ready),
                     image.channels);
        }
    }
    // The gradient of the logits, transposed to (width, point channels).
    void read_points(int64_t row) const {
        const int64_t plane = image.depth * image.height * image.width, stride = point_stride(image);
        for (int64_t i = 0; i < image.point_channels; ++i)
            for (int64_t x = 0; x < image.width; ++x)
                task.point_row[x * stride + i] = image.grad_out[i * plane + row * image.width + x];
    }
    const T* operator()(int64_t row) const {
        return image.surroundings == HEAD ? ring_row(row) : image.grad_out + row * image.width * image.channels;
    }

private:
    T* ring_row(int64_t row) const { return task.grad_ring + row % task.ring_rows * image.width * image.channels; }
};

// Adds one row's contribution to the gradients of a STEM's pointwise layer; grad (width, channels) is its output's.
template <class T>
INLINE void point_row_backward(const DepthwiseImage<T>& image, const DepthwiseTask<T>& task, int64_t row,
                               const T* grad) {
    const int64_t W = image.width, channels = image.channels, plane = image.depth * image.height * W;
    multiply(Product<T>{image.point_channels, channels, W, image.in + row * W, plane, 1, grad, 2 * LANES<T>, channels,
                        task.grad_point_weight, channels, true});
    add_columns(grad, W, channels, task.grad_point_bias);
}

template <class T>
void depthwise_backward(const DepthwiseImage<T>& image, const DepthwiseTask<T>& task) {
    const int64_t W = image.width, channels = image.channels, stride = point_stride(image);
    const int64_t halo_rows = halo_rows_of(image.kernel_height, image.height);
    Source<T> source(image, task, halo_rows);
    SourceOfGradients<T> gradients(image, task, halo_rows);
    for (int64_t row = task.first_row; row < task.last_row; ++row) {
        source.prepare(row + halo_rows);
        gradients.prepare(row + halo_rows);
        correlate(neighbours<T>(image, row, source), gradients(row), W, channels, task.grad_conv_weight);
        add_columns(gradients(row), W, channels, task.grad_conv_bias);
        if (image.surroundings == HEAD) {
            convolve(image, source, row, task.row);
            gradients.read_points(row);
            multiply(Product<T>{image.point_channels, channels, W, task.point_row, 1, stride, task.row, 2 * LANES<T>,
                                channels, task.grad_point_weight, channels, true});
            for (int64_t i = 0; i < image.point_channels; ++i)
                for (int64_t x = 0; x < W; ++x) task.grad_point_bias[i] += task.point_row[x * stride + i];
        }
        T* grad_row = image.surroundings == PLAIN ? image.grad_in + row * W * channels : task.row;
        const Neighbours<T> near = neighbours<T>(image, row, gradients);
        convolve_row(near.row, near.count, W, channels, image.conv_weight_back, static_cast<const T*>(nullptr),
                     [&](int64_t x, int64_t c, Vec<T> value) { store(grad_row + x * channels + c, value); });
        if (image.surroundings == STEM) point_row_backward(image, task, row, grad_row);
        if (image.surroundings == HEAD)
            interpolate_row_backward(grad_row, map_rows_of(image, row), task.first_map_plane * image.map_height,
                                     image.map_width, W, channels, task.map_rows, task.grad_map);
    }
}

template <class T>
constexpr DepthwiseKernels<T> DEPTHWISE_KERNELS = {LANES<T>, depthwise_forward<T>, depthwise_backward<T>};

}  // namespace
