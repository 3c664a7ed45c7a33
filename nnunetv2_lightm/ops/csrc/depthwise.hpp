// Depthwise convolution: three taps along a row of tokens, one or three rows along the other axes; zero padding.
#pragma once

#include "rows.hpp"

namespace {

constexpr int64_t TOKENS_AT_ONCE = VECTOR_BYTES == 64 ? 8 : 4;

// Calls put(token, channel, value) for tokens x ... x + COUNT - 1 of one output row.
template <class T, int64_t COUNT, class F>
INLINE void convolve_tokens(const T* const* rows, int64_t count, int64_t x, int64_t width, int64_t channels,
                            const T* weight, const T* bias, F put) {
    for (int64_t c = 0; c < channels; c += LANES<T>) {
        Vec<T> sums[COUNT];
        const Vec<T> start = bias ? load(bias + c) : Vec<T>{};
#pragma GCC unroll 8
        for (int64_t i = 0; i < COUNT; ++i) sums[i] = start;
        for (int64_t r = 0; r < count; ++r) {
            if (!rows[r]) continue;
            const T *from = rows[r] + x * channels + c, *w = weight + 3 * r * channels + c;
            const Vec<T> w0 = load(w), w1 = load(w + channels), w2 = load(w + 2 * channels);
            Vec<T> values[COUNT + 2];
            values[0] = x > 0 ? load(from - channels) : Vec<T>{};
#pragma GCC unroll 8
            for (int64_t i = 0; i < COUNT; ++i) values[i + 1] = load(from + i * channels);
            values[COUNT + 1] = x + COUNT < width ? load(from + COUNT * channels) : Vec<T>{};
#pragma GCC unroll 8
            for (int64_t i = 0; i < COUNT; ++i) sums[i] += values[i] * w0 + values[i + 1] * w1 + values[i + 2] * w2;
        }
#pragma GCC unroll 8
        for (int64_t i = 0; i < COUNT; ++i) put(x + i, c, sums[i]);
    }
}

// One row of the output. rows: the `count` input rows that it needs, null outside the image; weight (3 * count,
// channels); bias may be null.
template <class T, class F>
INLINE void convolve_row(const T* const* rows, int64_t count, int64_t width, int64_t channels, const T* weight,
                         const T* bias, F put) {
    int64_t x = 0;
    for (; x + TOKENS_AT_ONCE <= width; x += TOKENS_AT_ONCE)
        convolve_tokens<T, TOKENS_AT_ONCE>(rows, count, x, width, channels, weight, bias, put);
    for (; x < width; ++x) convolve_tokens<T, 1>(rows, count, x, width, channels, weight, bias, put);
}

// Adds one row's contribution to the weight's gradient, for three input rows (9 taps) and one vector of channels.
template <class T>
INLINE void correlate_row(const T* const* rows, const T* grad, int64_t width, int64_t channels, Vec<T> (&sums)[9]) {
    // In place of a missing row, reads the gradient and discards the result.
    const T* from[3];
    for (int64_t r = 0; r < 3; ++r) from[r] = rows[r] ? rows[r] : grad;
    Vec<T> before[3] = {}, here[3], more[9] = {};
    for (int64_t r = 0; r < 3; ++r) here[r] = load(from[r]);
    for (int64_t x = 0; x < width; ++x) {
        const Vec<T> g = load(grad + x * channels);
#pragma GCC unroll 3
        for (int64_t r = 0; r < 3; ++r) {
            const Vec<T> after = x + 1 < width ? load(from[r] + (x + 1) * channels) : Vec<T>{};
            more[3 * r] += g * before[r];
            more[3 * r + 1] += g * here[r];
            more[3 * r + 2] += g * after;
            before[r] = here[r];
            here[r] = after;
        }
    }
    for (int64_t i = 0; i < 9; ++i)
        if (rows[i / 3]) sums[i] += more[i];
}

// The rows row_at(index) that the taps for row `of` touch; null outside the image.
template <class T>
struct Neighbours {
    const T* row[9];
    int64_t count;

    template <class F>
    Neighbours(int64_t rows, int64_t height, int64_t kernel_height, int64_t of, F row_at) : count(3 * kernel_height) {
        const int64_t halo_rows = kernel_height / 2, depth = rows / height, z = of / height, y = of % height;
        for (int64_t i = 0; i < count; ++i) {
            const int64_t zi = z + i / kernel_height - 1, yi = y + i % kernel_height - halo_rows;
            const bool inside = zi >= 0 && zi < depth && yi >= 0 && yi < height;
            row[i] = inside ? row_at(zi * height + yi) : nullptr;
        }
    }
};

// Adds one row's contribution to grad_weight (3 * near.count, channels).
template <class T>
INLINE void correlate(const Neighbours<T>& near, const T* grad, int64_t width, int64_t channels, T* grad_weight) {
    for (int64_t part = 0; part < near.count / 3; ++part)
        for (int64_t c = 0; c < channels; c += LANES<T>) {
            Vec<T> sums[9] = {};
            const T* rows[3];
            for (int64_t i = 0; i < 3; ++i) rows[i] = near.row[3 * part + i] ? near.row[3 * part + i] + c : nullptr;
            correlate_row(rows, grad + c, width, channels, sums);
            for (int64_t i = 0; i < 9; ++i) add_to(grad_weight + (9 * part + i) * channels + c, sums[i]);
        }
}

}  // namespace
