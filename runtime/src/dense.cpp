#include "dense.hpp"

#include <algorithm>
#include <vector>

#include "parallel.hpp"

namespace {

constexpr int64_t ROWS = 4;         // tokens of a product side by side
constexpr int64_t BLOCK = 1 << 14;  // floats that a thread takes at once: they stay in its cache

// GCC and Clang then compile a function once for each of these and choose at run time, where the linker can.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(NO_TARGET_CLONES)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

FOR_EACH_PROCESSOR
void add_block(const float* __restrict from, float* __restrict to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

FOR_EACH_PROCESSOR
void scale_add_relu(const float* __restrict x, const float* __restrict scale, float* __restrict conv, int64_t tokens,
                    int64_t channels) {
    for (int64_t t = 0; t < tokens; ++t, x += channels, conv += channels)
        for (int64_t c = 0; c < channels; ++c) {
            const float value = conv[c] + scale[c] * x[c];
            conv[c] = value > 0.0f ? value : 0.0f;
        }
}

FOR_EACH_PROCESSOR
void pointwise(const float* __restrict in, const float* __restrict weights, const float* __restrict bias,
               float* __restrict out, int64_t tokens, int64_t channels, int64_t out_channels) {
    for (int64_t t = 0; t < tokens; t += ROWS) {
        const int64_t rows = std::min(ROWS, tokens - t);
        const float* x = in + t * channels;
        float* y = out + t * out_channels;
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = 0; j < out_channels; ++j) y[r * out_channels + j] = bias[j];
        if (rows == ROWS) {
            for (int64_t k = 0; k < channels; ++k) {
                const float a = x[k], b = x[channels + k], c = x[2 * channels + k], d = x[3 * channels + k];
                const float* row = weights + k * out_channels;
                for (int64_t j = 0; j < out_channels; ++j) {
                    y[j] += a * row[j];
                    y[out_channels + j] += b * row[j];
                    y[2 * out_channels + j] += c * row[j];
                    y[3 * out_channels + j] += d * row[j];
                }
            }
        } else {
            for (int64_t r = 0; r < rows; ++r)
                for (int64_t k = 0; k < channels; ++k)
                    for (int64_t j = 0; j < out_channels; ++j)
                        y[r * out_channels + j] += x[r * channels + k] * weights[k * out_channels + j];
        }
    }
}

// ATen/native/UpSample.h, area_pixel_compute_source_index.
struct Tap {
    int64_t first, second;
    float weight;  // of the second
};

std::vector<Tap> taps_of(int64_t size, int64_t new_size) {
    std::vector<Tap> taps;
    for (int64_t k = 0; k < new_size; ++k) {
        const float at = std::max(float(size) / float(new_size) * (float(k) + 0.5f) - 0.5f, 0.0f);
        const int64_t first = std::min(int64_t(at), size - 1);
        taps.push_back({first, std::min(first + 1, size - 1), at - float(first)});
    }
    return taps;
}

FOR_EACH_PROCESSOR
void blend(const float* __restrict a, const float* __restrict b, float weight, float* __restrict to, int64_t count) {
    for (int64_t i = 0; i < count; ++i) to[i] = a[i] + (b[i] - a[i]) * weight;
}

}  // namespace

void add(const float* from, float* to, int64_t count, int64_t threads) {
    parallel_for(ceil_div(count, BLOCK), threads, [&](int64_t i, int64_t) {
        add_block(from + i * BLOCK, to + i * BLOCK, std::min(BLOCK, count - i * BLOCK));
    });
}

void decoder_end(const float* x, const float* scale, float* conv, const float* weights, const float* bias, float* out,
                 int64_t tokens, int64_t channels, int64_t out_channels, int64_t threads) {
    const int64_t block = std::max(ceil_div(BLOCK / channels, ROWS), int64_t(1)) * ROWS;
    parallel_for(ceil_div(tokens, block), threads, [&](int64_t i, int64_t) {
        const int64_t first = i * block, count = std::min(block, tokens - first);
        scale_add_relu(x + first * channels, scale, conv + first * channels, count, channels);
        pointwise(conv + first * channels, weights, bias, out + first * out_channels, count, channels, out_channels);
    });
}

void upsample(const float* in, const Size& size, float* out, const Size& new_size, int64_t channels, int64_t threads) {
    const std::vector<Tap> zs = taps_of(size[0], new_size[0]), ys = taps_of(size[1], new_size[1]);
    const std::vector<Tap> xs = taps_of(size[2], new_size[2]);
    const int64_t row = size[2] * channels, plane = size[1] * row;
    // An image of one plane is shared by its rows.
    const int64_t parts = new_size[0] == 1 ? std::clamp<int64_t>(threads, 1, new_size[1]) : 1;
    const int64_t scratch = plane + row;  // of each thread: rows between two planes, a row between two rows
    const Buffer<float> of_threads(std::max<int64_t>(threads, 1) * scratch);
    parallel_for(new_size[0] * parts, threads, [&](int64_t i, int64_t worker) {
        const Tap& z = zs[size_t(i / parts)];
        const int64_t first = new_size[1] * (i % parts) / parts, last = new_size[1] * (i % parts + 1) / parts;
        const int64_t low = ys[size_t(first)].first, high = ys[size_t(last - 1)].second + 1;
        float *between = of_threads.data() + worker * scratch, *line = between + plane;
        blend(in + z.first * plane + low * row, in + z.second * plane + low * row, z.weight, between,
              (high - low) * row);
        float* to = out + (i / parts * new_size[1] + first) * new_size[2] * channels;
        for (int64_t k = first; k < last; ++k) {
            const Tap& y = ys[size_t(k)];
            blend(between + (y.first - low) * row, between + (y.second - low) * row, y.weight, line, row);
            for (const Tap& x : xs) {
                blend(line + x.first * channels, line + x.second * channels, x.weight, to, channels);
                to += channels;
            }
        }
    });
}
