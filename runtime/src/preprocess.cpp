#include "preprocess.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

constexpr double EPSILON = 1e-8;  // nnunetv2/preprocessing/normalization/default_normalization_schemes.py

// numpy adds pairwise in float32; in double the sums are closer to the true ones than both.
void z_score(float* image, int64_t count, const uint8_t* mask) {
    const auto counts = [mask](int64_t i) { return !mask || mask[i]; };
    double sum = 0.0, squares = 0.0;
    int64_t inside = 0;
    for (int64_t i = 0; i < count; ++i)
        if (counts(i)) sum += double(image[i]), ++inside;
    if (inside == 0) return;
    const double mean = sum / double(inside);
    for (int64_t i = 0; i < count; ++i)
        if (counts(i)) squares += (double(image[i]) - mean) * (double(image[i]) - mean);
    const double scale = std::max(std::sqrt(squares / double(inside)), EPSILON);
    for (int64_t i = 0; i < count; ++i)
        if (counts(i)) image[i] = float((double(image[i]) - mean) / scale);
}

}  // namespace

Box nonzero_box(const float* image, int64_t channels, const Size& size) {
    Box box{size, {0, 0, 0}};
    for (int64_t c = 0; c < channels; ++c) {
        const float* row = image + c * voxels(size);
        for (int64_t z = 0; z < size[0]; ++z)
            for (int64_t y = 0; y < size[1]; ++y, row += size[2]) {
                int64_t first = 0, last = size[2];
                while (first < last && row[first] == 0.0f) ++first;
                if (first == last) continue;
                while (row[last - 1] == 0.0f) --last;
                const Size low{z, y, first}, high{z + 1, y + 1, last};
                for (int64_t a = 0; a < 3; ++a) {
                    box.first[a] = std::min(box.first[a], low[a]);
                    box.last[a] = std::max(box.last[a], high[a]);
                }
            }
    }
    return box.last[0] == 0 ? Box{{0, 0, 0}, size} : box;
}

void nonzero_mask(const float* image, int64_t channels, const Size& size, uint8_t* mask) {
    // 2: not reached from outside yet; 1: not 0; 0: background that is connected to the outside.
    const int64_t count = voxels(size);
    std::fill_n(mask, count, uint8_t(2));
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < count; ++i)
            if (image[c * count + i] != 0.0f) mask[i] = 1;
    std::vector<int64_t> front;
    const auto reach = [&](int64_t i) {
        if (mask[i] == 2) mask[i] = 0, front.push_back(i);
    };
    const int64_t step[3] = {size[1] * size[2], size[2], 1};
    for (int64_t a = 0; a < 3; ++a) {
        const int64_t b = (a + 1) % 3, c = (a + 2) % 3;
        for (int64_t i = 0; i < size[b]; ++i)
            for (int64_t j = 0; j < size[c]; ++j) {
                const int64_t at = i * step[b] + j * step[c];
                reach(at), reach(at + (size[a] - 1) * step[a]);
            }
    }
    while (!front.empty()) {
        const int64_t at = front.back();
        front.pop_back();
        for (int64_t a = 0; a < 3; ++a) {
            const int64_t place = at / step[a] % size[a];
            if (place > 0) reach(at - step[a]);
            if (place + 1 < size[a]) reach(at + step[a]);
        }
    }
    for (int64_t i = 0; i < count; ++i) mask[i] = mask[i] != 0;
}

int normalise(float* image, int64_t count, const LightmChannel& channel, const uint8_t* mask) {
    const auto [least, most] = std::minmax_element(image, image + count);
    const float low = *least, high = *most;
    switch (channel.scheme) {
        case LIGHTM_Z_SCORE:
            z_score(image, count, channel.use_mask ? mask : nullptr);
            return LIGHTM_OK;
        case LIGHTM_CT: {
            const float lower = float(channel.lower), upper = float(channel.upper), mean = float(channel.mean);
            const float scale = float(std::max(channel.std, EPSILON));
            for (int64_t i = 0; i < count; ++i) image[i] = (std::clamp(image[i], lower, upper) - mean) / scale;
            return LIGHTM_OK;
        }
        case LIGHTM_NO_NORMALIZATION:
            return LIGHTM_OK;
        case LIGHTM_RESCALE_TO_01: {
            const float scale = std::max(high - low, float(EPSILON));
            for (int64_t i = 0; i < count; ++i) image[i] = (image[i] - low) / scale;
            return LIGHTM_OK;
        }
        case LIGHTM_RGB_TO_01:
            if (low < 0.0f || high > 255.0f) return LIGHTM_NOT_RGB;
            for (int64_t i = 0; i < count; ++i) image[i] /= 255.0f;
            return LIGHTM_OK;
    }
    return LIGHTM_BAD_ARGUMENT;
}
