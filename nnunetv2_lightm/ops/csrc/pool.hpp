// Max-pooling of a slab's rows as they arrive, and its gradient.
#pragma once

#include <type_traits>

#include "rows.hpp"
#include "rvm.hpp"

namespace {

template <class T>
struct Bytes {
    typedef uint8_t type __attribute__((vector_size(LANES<T>)));
};

// What comparing vectors yields: integers as wide as T.
template <class T>
using MaskOf = decltype(Vec<T>{} < Vec<T>{});

template <class T>
INLINE MaskOf<T> broadcast(int64_t value) {
    return MaskOf<T>{} + static_cast<std::decay_t<decltype(MaskOf<T>{}[0])>>(value);
}

// Merges one row of a pooling window into the pooled row (width / stride, channels): a larger value wins, and so does
// NaN, like in PyTorch. `offset`: index in the window of the row's first token; argmax may be null.
template <class T>
INLINE void pool_row(const T* row, int64_t pooled_width, int64_t stride, int64_t channels, int64_t offset, T* pooled,
                     uint8_t* argmax) {
    using Mask = MaskOf<T>;
    using Offsets = typename Bytes<T>::type;
    for (int64_t x = 0; x < pooled_width; ++x)
        for (int64_t c = 0; c < channels; c += LANES<T>) {
            const int64_t at = x * channels + c;
            Vec<T> best = offset ? load(pooled + at) : load(row + x * stride * channels + c);
            Mask offsets{};
            if (argmax && offset) {
                Offsets stored;
                memcpy(&stored, argmax + at, sizeof stored);
                offsets = __builtin_convertvector(stored, Mask);
            }
            for (int64_t i = offset ? 0 : 1; i < stride; ++i) {
                const Vec<T> value = load(row + (x * stride + i) * channels + c);
                const Mask larger = (value > best) | (value != value);
                best = larger ? value : best;
                offsets = larger ? broadcast<T>(offset + i) : offsets;
            }
            store(pooled + at, best);
            if (argmax) {
                const Offsets stored = __builtin_convertvector(offsets, Offsets);
                memcpy(argmax + at, &stored, sizeof stored);
            }
        }
}

// Merges into the pooled row (z, y) those of the slab's rows first_row ... last_row - 1 that are in its window.
template <class T>
void pool_rows(const RvmPooling<T>& p, const T* rows, int64_t first_row, int64_t last_row, int64_t z, int64_t y) {
    const int64_t width = p.width / p.stride[2], at = (z * (p.height / p.stride[1]) + y) * width * p.channels;
    for (int64_t i = 0; i < p.stride[0] * p.stride[1]; ++i) {
        const int64_t row = (z * p.stride[0] + i / p.stride[1]) * p.height + y * p.stride[1] + i % p.stride[1];
        if (row >= first_row && row < last_row)
            pool_row(rows + (row - first_row) * p.width * p.channels, width, p.stride[2], p.channels, i * p.stride[2],
                     p.pooled + at, p.argmax ? p.argmax + at : nullptr);
    }
}

// One row of the gradient of pooling's input.
template <class T>
void unpool_row(const RvmPooling<T>& p, int64_t row, T* to) {
    using Mask = MaskOf<T>;
    const int64_t z = row / p.height, y = row % p.height, height = p.height / p.stride[1];
    const int64_t width = p.width / p.stride[2], depth = p.depth / p.stride[0];
    memset(to, 0, p.width * p.channels * sizeof(T));
    if (z / p.stride[0] >= depth || y / p.stride[1] >= height) return;
    const int64_t at = (z / p.stride[0] * height + y / p.stride[1]) * width * p.channels;
    const int64_t offset = (z % p.stride[0] * p.stride[1] + y % p.stride[1]) * p.stride[2];
    for (int64_t x = 0; x < width; ++x)
        for (int64_t c = 0; c < p.channels; c += LANES<T>) {
            typename Bytes<T>::type stored;
            memcpy(&stored, p.argmax + at + x * p.channels + c, sizeof stored);
            const Mask offsets = __builtin_convertvector(stored, Mask);
            const Vec<T> grad = load(p.pooled + at + x * p.channels + c);
            for (int64_t i = 0; i < p.stride[2]; ++i)
                store(to + (x * p.stride[2] + i) * p.channels + c,
                      offsets == broadcast<T>(offset + i) ? grad : Vec<T>{});
        }
}

}  // namespace
