// SiLU, and LayerNorm over rows of channels, forward and backward.
#pragma once

#include "vector_math.hpp"

namespace {

constexpr double NORM_EPSILON = 1e-5;

template <class T>
INLINE Vec<T> silu(Vec<T> x) {
    return x * sigmoid(x);
}

// Derivative of SiLU at x, given s = sigmoid(x).
template <class T>
INLINE Vec<T> silu_slope(Vec<T> x, Vec<T> s) {
    return s * (x * (T(1) - s) + T(1));
}

template <class T>
INLINE Vec<T> load(const T* from) {
    return load(from, LANES<T>);
}

template <class T>
INLINE void store(T* to, Vec<T> v) {
    store(to, v, LANES<T>);
}

template <class T>
INLINE void add_to(T* to, Vec<T> v) {
    store(to, load(to) + v);
}

// Sums the columns of (rows, channels).
template <class T>
INLINE void add_columns(const T* rows, int64_t count, int64_t channels, T* sums) {
    for (int64_t c = 0; c < channels; c += LANES<T>) {
        Vec<T> sum = load(sums + c);
        for (int64_t i = 0; i < count; ++i) sum += load(rows + i * channels + c);
        store(sums + c, sum);
    }
}

// Mean and reciprocal standard deviation of up to LANES rows.
template <class T>
struct Moments {
    Vec<T> mean, scale;

    Moments(const T* x, int64_t stride, int64_t rows, int64_t channels) {
        Vec<T> sums[LANES<T>] = {};
        for (int64_t i = 0; i < rows; ++i)
            for (int64_t c = 0; c < channels; c += LANES<T>) sums[i] += load(x + i * stride + c);
        mean = lane_sums(sums) / T(channels);
        for (int64_t i = 0; i < rows; ++i) {
            const T mu = mean[i];
            Vec<T> sum{};
            for (int64_t c = 0; c < channels; c += LANES<T>) {
                const Vec<T> d = load(x + i * stride + c) - mu;
                sum += d * d;
            }
            sums[i] = sum;
        }
        const Vec<T> variance = lane_sums(sums) / T(channels) + T(NORM_EPSILON);
        for (int64_t i = 0; i < LANES<T>; ++i) scale[i] = T(1) / sqrt(variance[i]);
    }
};

// Calls f(rows, first row) for rows in groups of LANES.
template <class T, class F>
INLINE void for_row_groups(int64_t rows, F f) {
    for (int64_t i = 0; i < rows; i += LANES<T>) f(rows - i < LANES<T> ? rows - i : LANES<T>, i);
}

// Calls put(row, channel, normalised value) for all rows.
template <class T, class F>
INLINE void normalise(const T* x, int64_t stride, int64_t rows, int64_t channels, F put) {
    for_row_groups<T>(rows, [&](int64_t count, int64_t first) {
        const Moments<T> moments(x + first * stride, stride, count, channels);
        for (int64_t i = 0; i < count; ++i) {
            const T mean = moments.mean[i], scale = moments.scale[i];
            for (int64_t c = 0; c < channels; c += LANES<T>)
                put(first + i, c, (load(x + (first + i) * stride + c) - mean) * scale);
        }
    });
}

template <class T>
INLINE void layer_norm(const T* x, int64_t stride, int64_t rows, int64_t channels, const T* weight, const T* bias,
                       T* to) {
    normalise(x, stride, rows, channels, [&](int64_t row, int64_t c, Vec<T> value) {
        store(to + row * channels + c, value * load(weight + c) + load(bias + c));
    });
}

// Given grad (rows, channels), the output's gradient, calls put(row, channel, gradient of x) and adds to the gradients
// of the weight and the bias.
template <class T, class F>
INLINE void layer_norm_backward(const T* x, int64_t stride, int64_t rows, int64_t channels, const T* weight,
                                const T* grad, T* grad_weight, T* grad_bias, F put) {
    for_row_groups<T>(rows, [&](int64_t count, int64_t first) {
        const Moments<T> moments(x + first * stride, stride, count, channels);
        Vec<T> sums[LANES<T>] = {}, products[LANES<T>] = {};
        for (int64_t i = 0; i < count; ++i) {
            const T mean = moments.mean[i], scale = moments.scale[i];
            Vec<T> sum{}, product{};
            for (int64_t c = 0; c < channels; c += LANES<T>) {
                const Vec<T> value = (load(x + (first + i) * stride + c) - mean) * scale;
                const Vec<T> g = load(grad + (first + i) * channels + c), inner = g * load(weight + c);
                add_to(grad_weight + c, g * value);
                add_to(grad_bias + c, g);
                sum += inner;
                product += inner * value;
            }
            sums[i] = sum;
            products[i] = product;
        }
        const Vec<T> mean_sum = lane_sums(sums) / T(channels), mean_product = lane_sums(products) / T(channels);
        for (int64_t i = 0; i < count; ++i) {
            const T mean = moments.mean[i], scale = moments.scale[i], a = mean_sum[i], b = mean_product[i];
            for (int64_t c = 0; c < channels; c += LANES<T>) {
                const Vec<T> value = (load(x + (first + i) * stride + c) - mean) * scale;
                put(first + i, c, (load(grad + (first + i) * channels + c) * load(weight + c) - a - value * b) * scale);
            }
        }
    });
}

}  // namespace
