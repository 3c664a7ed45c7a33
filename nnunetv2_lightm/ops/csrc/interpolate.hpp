// Linear interpolation of channels-last rows (align_corners=False, like PyTorch's), and its gradient.
#pragma once

#include "rows.hpp"

namespace {

// Where an output coordinate falls among the input's: `fraction` of the way from `low` to `high`.
template <class T>
struct Interpolant {
    int64_t low, high;
    T fraction;

    Interpolant(int64_t at, int64_t size_in, int64_t size_out) {
        T source = (T(at) + T(0.5)) * (T(size_in) / T(size_out)) - T(0.5);
        source = source > 0 ? source : T(0);
        low = static_cast<int64_t>(source) < size_in - 1 ? static_cast<int64_t>(source) : size_in - 1;
        high = low + 1 < size_in ? low + 1 : low;
        fraction = source - T(low);
    }
};

// The four rows of the map around row (z, y) of the output, and their weights.
template <class T>
struct MapRows {
    int64_t row[4];
    T weight[4];

    MapRows(int64_t z, int64_t y, int64_t depth, int64_t height, int64_t map_depth, int64_t map_height) {
        const Interpolant<T> planes(z, map_depth, depth), rows(y, map_height, height);
        for (int64_t i = 0; i < 4; ++i) {
            row[i] = (i < 2 ? planes.low : planes.high) * map_height + (i % 2 ? rows.high : rows.low);
            weight[i] = (i < 2 ? 1 - planes.fraction : planes.fraction) * (i % 2 ? rows.fraction : 1 - rows.fraction);
        }
    }
};

// map (rows, map_width, channels) -> to (width, channels). `mixed` (map_width, channels) is scratch.
template <class T>
INLINE void interpolate_row(const T* map, const MapRows<T>& rows, int64_t map_width, int64_t width, int64_t channels,
                            T* mixed, T* to) {
    const int64_t count = map_width * channels;
    for (int64_t i = 0; i < count; i += LANES<T>) {
        Vec<T> sum = load(map + rows.row[0] * count + i) * rows.weight[0];
        for (int64_t r = 1; r < 4; ++r)
            if (rows.weight[r] != 0) sum += load(map + rows.row[r] * count + i) * rows.weight[r];
        store(mixed + i, sum);
    }
    for (int64_t x = 0; x < width; ++x) {
        const Interpolant<T> at(x, map_width, width);
        for (int64_t c = 0; c < channels; c += LANES<T>) {
            const Vec<T> low = load(mixed + at.low * channels + c);
            store(to + x * channels + c, low + (load(mixed + at.high * channels + c) - low) * at.fraction);
        }
    }
}

// Adds the gradient of one row to grad_map, which begins at row first_map_row of the map.
template <class T>
INLINE void interpolate_row_backward(const T* grad, const MapRows<T>& rows, int64_t first_map_row, int64_t map_width,
                                     int64_t width, int64_t channels, T* mixed, T* grad_map) {
    const int64_t count = map_width * channels;
    memset(mixed, 0, count * sizeof(T));
    for (int64_t x = 0; x < width; ++x) {
        const Interpolant<T> at(x, map_width, width);
        for (int64_t c = 0; c < channels; c += LANES<T>) {
            const Vec<T> g = load(grad + x * channels + c), high = g * at.fraction;
            add_to(mixed + at.low * channels + c, g - high);
            add_to(mixed + at.high * channels + c, high);
        }
    }
    for (int64_t r = 0; r < 4; ++r) {
        if (rows.weight[r] == 0) continue;
        T* to = grad_map + (rows.row[r] - first_map_row) * count;
        for (int64_t i = 0; i < count; i += LANES<T>) add_to(to + i, load(mixed + i) * rows.weight[r]);
    }
}

}  // namespace
