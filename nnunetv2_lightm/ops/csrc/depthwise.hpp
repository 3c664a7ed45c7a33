// Depthwise convolution, three taps along a row of tokens and one or three rows in each other direction.
#pragma once

#include "rows.hpp"

namespace {

constexpr int64_t TOKENS_AT_ONCE = VECTOR_BYTES == 64 ? 8 : 4;

// put(token, channel, value) for one row of the output. rows: the input rows that it needs, null where there is none,
// each with one token of padding at both ends; weight (3 * count, channels).
template <class T, int64_t X, class F>
INLINE void convolve_tokens(const T* const* rows, int64_t count, int64_t x, int64_t channels, const T* weight,
                            const T* bias, F put) {
    for (int64_t c = 0; c < channels; c += LANES<T>) {
        Vec<T> sums[X];
        const Vec<T> start = bias ? load(bias + c) : Vec<T>{};
#pragma GCC unroll 8
        for (int64_t i = 0; i < X; ++i) sums[i] = start;
        for (int64_t r = 0; r < count; ++r) {
            if (!rows[r]) continue;
            const T *from = rows[r] + x * channels + c, *w = weight + 3 * r * channels + c;
            const Vec<T> w0 = load(w), w1 = load(w + channels), w2 = load(w + 2 * channels);
            Vec<T> values[X + 2];
#pragma GCC unroll 10
            for (int64_t i = 0; i < X + 2; ++i) values[i] = load(from + i * channels);
#pragma GCC unroll 8
            for (int64_t i = 0; i < X; ++i) sums[i] += values[i] * w0 + values[i + 1] * w1 + values[i + 2] * w2;
        }
#pragma GCC unroll 8
        for (int64_t i = 0; i < X; ++i) put(x + i, c, sums[i]);
    }
}

template <class T, class F>
INLINE void convolve_row(const T* const* rows, int64_t count, int64_t width, int64_t channels, const T* weight,
                         const T* bias, F put) {
    int64_t x = 0;
    for (; x + TOKENS_AT_ONCE <= width; x += TOKENS_AT_ONCE)
        convolve_tokens<T, TOKENS_AT_ONCE>(rows, count, x, channels, weight, bias, put);
    for (; x < width; ++x) convolve_tokens<T, 1>(rows, count, x, channels, weight, bias, put);
}

// Adds one row's share to the weight's gradient, for three input rows (9 taps) and one vector of channels.
template <class T>
INLINE void correlate_row(const T* const* rows, const T* grad, int64_t width, int64_t channels, Vec<T> (&sums)[9]) {
    // A missing row is read from the gradient itself and thrown away.
    const T* from[3];
    for (int64_t r = 0; r < 3; ++r) from[r] = rows[r] ? rows[r] : grad - channels;
    Vec<T> before[3], here[3], more[9] = {};
    for (int64_t r = 0; r < 3; ++r) before[r] = load(from[r]), here[r] = load(from[r] + channels);
    for (int64_t x = 0; x < width; ++x) {
        const Vec<T> g = load(grad + x * channels);
#pragma GCC unroll 3
        for (int64_t r = 0; r < 3; ++r) {
            const Vec<T> after = load(from[r] + (x + 2) * channels);
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

}  // namespace
