#include "window.hpp"

#include <algorithm>
#include <cmath>

#include "half.hpp"

std::vector<int64_t> window_starts(int64_t size, int64_t patch, double step) {
    const int64_t last = size - patch, count = int64_t(std::ceil(double(last) / (double(patch) * step))) + 1;
    std::vector<int64_t> starts;
    for (int64_t i = 0; i < count; ++i)
        starts.push_back(count == 1 ? 0 : int64_t(std::nearbyint(double(last) / double(count - 1) * double(i))));
    return starts;
}

namespace {

// scipy.ndimage.gaussian_filter of a hot voxel in the middle, one axis: truncated at 4 sigma, nothing beyond the edge.
std::vector<double> bell(int64_t size, double sigma_scale) {
    const double sigma = double(size) * sigma_scale;
    const int64_t radius = int64_t(4.0 * sigma + 0.5), centre = size / 2;
    double sum = 0.0;
    for (int64_t x = -radius; x <= radius; ++x) sum += std::exp(-0.5 / (sigma * sigma) * double(x * x));
    std::vector<double> values;
    for (int64_t i = 0; i < size; ++i) {
        const int64_t x = i - centre;
        values.push_back(std::abs(x) > radius ? 0.0 : std::exp(-0.5 / (sigma * sigma) * double(x * x)) / sum);
    }
    return values;
}

}  // namespace

Buffer<float> window_weights(const Size& patch, int64_t dims, double sigma) {
    Buffer<float> weights(voxels(patch));
    std::fill_n(weights.data(), voxels(patch), 1.0f);
    if (sigma == 0.0) return weights;
    std::vector<double> axes[3];
    double most = 1.0;
    for (int64_t a = 0; a < 3; ++a) {
        axes[a] = a < 3 - dims ? std::vector<double>(size_t(patch[a]), 1.0) : bell(patch[a], sigma);
        most *= *std::max_element(axes[a].begin(), axes[a].end());
    }
    float least = 65504.0f;
    float* at = weights.data();
    for (const double z : axes[0])
        for (const double y : axes[1])
            for (const double x : axes[2]) {
                // torch converts by way of float32.
                *at = rounded_to_half(double(float(z * y * x / (most / 10.0))));
                if (*at > 0.0f) least = std::min(least, *at);
                ++at;
            }
    // No voxel may be without weight.
    std::replace(weights.data(), weights.data() + voxels(patch), 0.0f, least);
    return weights;
}

TileSums::TileSums(int64_t classes, const Size& size, const Size& patch, Buffer<float> tile_weights)
    : classes(classes),
      size(size),
      patch(patch),
      weights(std::move(tile_weights)),
      sums(classes * patch[0] * size[1] * size[2]),
      weight_sums(patch[0] * size[1] * size[2]),
      mean(classes * size[1] * size[2]) {
    std::fill_n(sums.data(), classes * patch[0] * size[1] * size[2], 0.0f);
    std::fill_n(weight_sums.data(), patch[0] * size[1] * size[2], 0.0f);
}

void TileSums::add(const Size& first, const Mirroring& mirroring, const float* logits, float share) {
    const auto mirrored = [&](int64_t axis, int64_t i) { return mirroring[size_t(axis)] ? patch[axis] - 1 - i : i; };
    const int64_t step = mirroring[2] ? -1 : 1;
    for (int64_t z = 0; z < patch[0]; ++z)
        for (int64_t y = 0; y < patch[1]; ++y) {
            const int64_t at = (first[1] + y) * size[2] + first[2];
            const float* weight = weights.data() + (z * patch[1] + y) * patch[2];
            float* to = weight_of(first[0] + z) + at;
            for (int64_t x = 0; x < patch[2]; ++x) to[x] += weight[x] * share;
            for (int64_t c = 0; c < classes; ++c) {
                const int64_t row = (c * patch[0] + mirrored(0, z)) * patch[1] + mirrored(1, y);
                const float* from = logits + row * patch[2] + mirrored(2, 0);
                to = sum_of(c, first[0] + z) + at;
                for (int64_t x = 0; x < patch[2]; ++x) to[x] += from[x * step] * (weight[x] * share);
            }
        }
}

// The mean of a plane, whose sums become 0 for the plane that comes in its place.
bool TileSums::divide(int64_t plane) {
    const int64_t count = size[1] * size[2];
    float* weight = weight_of(plane);
    bool finite = true;
    for (int64_t c = 0; c < classes; ++c) {
        float* sum = sum_of(c, plane);
        for (int64_t i = 0; i < count; ++i) {
            mean[c * count + i] = sum[i] / weight[i];
            finite &= std::isfinite(mean[c * count + i]);
        }
        std::fill_n(sum, count, 0.0f);
    }
    std::fill_n(weight, count, 0.0f);
    return finite;
}
