#include "dense.hpp"

#include <algorithm>
#include <vector>

// GCC and Clang then compile a function once for each of these and choose at run time, where the linker can.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__) && !defined(NO_TARGET_CLONES)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "arch=haswell", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif

FOR_EACH_PROCESSOR
void add(const float* __restrict from, float* __restrict to, int64_t count) {
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
    constexpr int64_t ROWS = 4;
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

namespace {

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

void upsample(const float* in, const Size& size, float* out, const Size& new_size, int64_t channels) {
    const std::vector<Tap> zs = taps_of(size[0], new_size[0]), ys = taps_of(size[1], new_size[1]);
    const std::vector<Tap> xs = taps_of(size[2], new_size[2]);
    const int64_t row = size[2] * channels, plane = size[1] * row;
    const Buffer<float> between(plane), line(row);
    for (const Tap& z : zs) {
        blend(in + z.first * plane, in + z.second * plane, z.weight, between.data(), plane);
        for (const Tap& y : ys) {
            blend(between.data() + y.first * row, between.data() + y.second * row, y.weight, line.data(), row);
            for (const Tap& x : xs) {
                blend(line.data() + x.first * channels, line.data() + x.second * channels, x.weight, out, channels);
                out += channels;
            }
        }
    }
}
