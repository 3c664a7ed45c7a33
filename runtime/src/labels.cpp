#include "labels.hpp"

#include <utility>

LabelWriter::LabelWriter(int64_t classes, const Size& size, const Size& new_size, const ResamplingPlan& plan,
                         const int64_t* regions, const LabelTarget& target)
    : classes(classes),
      size(size),
      new_size(new_size),
      taps{linear_taps(size[0], new_size[0], plan.order[0]), linear_taps(size[1], new_size[1], plan.order[1]),
           linear_taps(size[2], new_size[2], plan.order[2])},
      regions(regions),
      target(target),
      before(classes * new_size[1] * new_size[2]),
      current(classes * new_size[1] * new_size[2]) {}

void LabelWriter::take(const float* logits, int64_t class_stride, int64_t row_stride) {
    std::swap(before, current);
    resample_plane(logits, class_stride, row_stride, current.data());
    const auto plane = [&](int64_t i) { return i == taken ? current.data() : before.data(); };
    for (; written < new_size[0]; ++written) {
        const LinearTap& tap = taps[0][written];
        // A tap without weight needs no second plane.
        const int64_t second = tap.weight > 0.0 ? tap.second : tap.first;
        if (second > taken) break;
        write_plane(written, plane(tap.first), plane(second), float(tap.weight));
    }
    ++taken;
}

void LabelWriter::resample_plane(const float* logits, int64_t class_stride, int64_t row_stride, float* to) const {
    for (int64_t c = 0; c < classes; ++c)
        for (const LinearTap& y : taps[1]) {
            const float* first = logits + c * class_stride + y.first * row_stride;
            const float* second = logits + c * class_stride + y.second * row_stride;
            const float b = float(y.weight), a = 1.0f - b;
            for (const LinearTap& x : taps[2]) {
                const float d = float(x.weight), e = 1.0f - d;
                *to++ =
                    (first[x.first] * e + first[x.second] * d) * a + (second[x.first] * e + second[x.second] * d) * b;
            }
        }
}

void LabelWriter::write_plane(int64_t z, const float* first, const float* second, float weight) {
    const int64_t count = new_size[1] * new_size[2];
    for (int64_t y = 0; y < new_size[1]; ++y)
        for (int64_t x = 0; x < new_size[2]; ++x) {
            const int64_t i = y * new_size[2] + x;
            const auto logit = [&](int64_t c) {
                const float a = first[c * count + i];
                return weight == 0.0f ? a : a * (1.0f - weight) + second[c * count + i] * weight;
            };
            int64_t label = 0;
            if (regions) {
                // sigmoid(logit) > 0.5; later regions overwrite earlier ones.
                for (int64_t c = 0; c < classes; ++c)
                    if (logit(c) > 0.0f) label = regions[c];
            } else {
                float most = logit(0);
                for (int64_t c = 1; c < classes; ++c)
                    if (const float value = logit(c); value > most) most = value, label = c;
            }
            const int64_t at = target.offset + z * target.stride[0] + y * target.stride[1] + x * target.stride[2];
            if (target.label_bytes == 1)
                static_cast<uint8_t*>(target.labels)[at] = uint8_t(label);
            else
                static_cast<uint16_t*>(target.labels)[at] = uint16_t(label);
        }
}
