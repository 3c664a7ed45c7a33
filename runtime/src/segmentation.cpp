#include "segmentation.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace {

Size size_of(const int64_t values[3]) { return {values[0], values[1], values[2]}; }

// The axes of the image in the order in which they are worked on.
template <class T>
std::array<T, 3> transposed(const std::array<T, 3>& values, const int64_t transpose[3]) {
    return {values[transpose[0]], values[transpose[1]], values[transpose[2]]};
}

// The voxels of a box of a transposed image, channel by channel.
Buffer<float> cropped(const float* image, int64_t channels, const Size& shape, const Box& box,
                      const int64_t transpose[3]) {
    const Size stride = transposed(Size{shape[1] * shape[2], shape[2], 1}, transpose);
    Buffer<float> values(channels * voxels(box.size()));
    float* to = values.data();
    for (int64_t c = 0; c < channels; ++c)
        for (int64_t z = box.first[0]; z < box.last[0]; ++z)
            for (int64_t y = box.first[1]; y < box.last[1]; ++y) {
                const float* from = image + c * voxels(shape) + z * stride[0] + y * stride[1];
                for (int64_t x = box.first[2]; x < box.last[2]; ++x) *to++ = from[x * stride[2]];
            }
    return values;
}

constexpr int64_t MOST_AXIS = 1 << 14, MOST_PATCH = 1 << 28;  // voxels of a patch
constexpr double MOST_IMAGE = 4294967296.0;                   // voxels to resample to: 16 GiB of each channel
constexpr double LEAST_STEP = 0.1, LEAST_SIGMA = 0.001;       // of a patch: below, tiles or weights would never end
constexpr int64_t MOST_LABEL = 65535;

// In 2D slices stay as they are.
Spacing target_of(const LightmPipeline& p, int64_t dims, const Spacing& spacing) {
    return {dims == 3 ? p.spacing[0] : spacing[0], p.spacing[1], p.spacing[2]};
}

// nnunetv2/preprocessing/resampling/default_resampling.py, compute_new_shape; Python rounds half to even.
std::array<double, 3> new_size(const Size& size, const Spacing& spacing, const Spacing& target) {
    std::array<double, 3> found;
    for (size_t a = 0; a < 3; ++a) found[a] = std::nearbyint(spacing[a] / target[a] * double(size[a]));
    return found;
}

bool is_length(double mm) { return std::isfinite(mm) && mm > 0.0; }

bool is_sound(const LightmResampling& r, std::initializer_list<int64_t> orders) {
    const auto one_of = [](int64_t value, std::initializer_list<int64_t> values) {
        return std::find(values.begin(), values.end(), value) != values.end();
    };
    return one_of(r.order, orders) && one_of(r.order_z, orders) && one_of(r.force_separate_z, {-1, 0, 1}) &&
           r.anisotropy_threshold > 0.0;
}

bool is_sound(const LightmChannel& c) {
    if (c.scheme < LIGHTM_Z_SCORE || c.scheme > LIGHTM_RGB_TO_01) return false;
    return c.scheme != LIGHTM_CT || (std::isfinite(c.mean) && std::isfinite(c.std) && std::isfinite(c.lower) &&
                                     std::isfinite(c.upper) && c.lower <= c.upper);
}

}  // namespace

bool labels_fit(const LightmModel& model, int64_t label_bytes) {
    const int64_t classes = model.network.classes;
    const int64_t* regions = model.pipeline.regions;
    const int64_t most = regions ? *std::max_element(regions, regions + classes) : classes - 1;
    return (label_bytes == 1 && most <= 255) || (label_bytes == 2 && most <= MOST_LABEL);
}

std::array<double, 3> resampled_size(const LightmModel& model, const float* image, const Size& shape,
                                     const Spacing& spacing) {
    const LightmPipeline& p = model.pipeline;
    const Box box = nonzero_box(image, model.network.input_channels, shape);
    const Spacing worked_on = transposed(spacing, p.transpose);
    const auto size = new_size(transposed(box.size(), p.transpose), worked_on,
                               target_of(p, model.network.spatial_dims, worked_on));
    std::array<double, 3> of_image{};
    for (size_t a = 0; a < 3; ++a) of_image[size_t(p.transpose[a])] = size[a];
    return of_image;
}

bool is_sound(const LightmPipeline& p, const LightmNetwork& n) {
    bool axes[3] = {};
    for (int64_t a = 0; a < 3; ++a) {
        if (p.transpose[a] < 0 || p.transpose[a] > 2 || p.patch[a] < 1 || p.patch[a] > MOST_AXIS) return false;
        axes[p.transpose[a]] = true;
        if (!is_length(p.spacing[a]) && (a > 0 || n.spatial_dims == 3)) return false;
    }
    for (int64_t c = 0; c < n.input_channels; ++c)
        if (!is_sound(p.channels[c])) return false;
    for (int64_t c = 0; p.regions && c < n.classes; ++c)
        if (p.regions[c] < 0 || p.regions[c] > MOST_LABEL) return false;
    return axes[0] && axes[1] && axes[2] && voxels(size_of(p.patch)) <= MOST_PATCH &&
           (n.spatial_dims == 3 || (p.patch[0] == 1 && !p.mirror[0])) && is_sound(p.data, {0, 1, 3}) &&
           is_sound(p.logits, {0, 1}) && p.step >= LEAST_STEP && p.step <= 1.0 &&
           (p.sigma == 0.0 || (p.sigma >= LEAST_SIGMA && p.sigma <= 1.0));
}

Segmentation::Segmentation(const LightmModel& model, const Size& shape, const Spacing& image_spacing, void* labels,
                           int64_t label_bytes)
    : model(model),
      p(model.pipeline),
      shape(shape),
      spacing(transposed(image_spacing, p.transpose)),
      target(target_of(p, model.network.spatial_dims, spacing)),
      labels(labels),
      label_bytes(label_bytes),
      patch_size(size_of(p.patch)) {
    // nnunetv2/inference/predict_from_raw_data.py, _internal_maybe_mirror_and_predict: every subset of the axes.
    for (int64_t subset = 0; subset < 8; ++subset) {
        Mirroring mirroring;
        bool allowed = true;
        for (int64_t a = 0; a < 3; ++a) {
            mirroring[size_t(a)] = subset >> a & 1;
            allowed &= p.mirror[a] || !mirroring[size_t(a)];
        }
        if (allowed) mirrorings.push_back(mirroring);
    }
}

// The size to resample to. Here, before any memory is asked for: a spacing in another unit makes it a thousand times as
// large along each axis.
int Segmentation::plan_size(const Size& crop) {
    const std::array<double, 3> found = new_size(crop, spacing, target);
    double count = 1.0;
    for (size_t a = 0; a < 3; ++a) {
        if (!(found[a] >= 1.0)) return LIGHTM_BAD_ARGUMENT;
        count *= std::max(found[a], double(patch_size[a]));
    }
    if (count > MOST_IMAGE) return LIGHTM_TOO_LARGE;
    for (size_t a = 0; a < 3; ++a) {
        size[a] = int64_t(found[a]);
        padded[a] = std::max(size[a], patch_size[a]);
        padding[a] = (padded[a] - size[a]) / 2;
    }
    return LIGHTM_OK;
}

int Segmentation::prepare(const float* image) {
    const int64_t channels = model.network.input_channels, dims = model.network.spatial_dims;
    for (int64_t i = 0; i < channels * voxels(shape); ++i)
        if (!std::isfinite(image[i])) return LIGHTM_NOT_FINITE;
    const Box box = nonzero_box(image, channels, shape);
    const Box turned{transposed(box.first, p.transpose), transposed(box.last, p.transpose)};
    const Size crop = turned.size();
    if (const int status = plan_size(crop)) return status;
    const int64_t count = voxels(crop);
    const Buffer<float> values = cropped(image, channels, shape, turned, p.transpose);

    Buffer<uint8_t> mask;
    for (int64_t c = 0; c < channels; ++c)
        if (p.channels[c].use_mask && !mask) {
            mask = Buffer<uint8_t>(count);
            nonzero_mask(values.data(), channels, crop, mask.data());
        }
    for (int64_t c = 0; c < channels; ++c)
        if (const int status = normalise(values.data() + c * count, count, p.channels[c], mask.data())) return status;

    data = Buffer<float>(channels * voxels(size));
    const ResamplingPlan plan = plan_resampling(p.data, spacing, target);
    for (int64_t c = 0; c < channels; ++c)
        resample(values.data() + c * count, crop, data.data() + c * voxels(size), size, plan);

    for (int64_t a = 0; a < 3; ++a) starts[a] = window_starts(padded[a], patch_size[a], a < 3 - dims ? 1.0 : p.step);
    sums = std::make_unique<TileSums>(model.network.classes, padded, patch_size,
                                      window_weights(patch_size, dims, p.sigma));

    std::memset(labels, 0, size_t(voxels(shape) * label_bytes));
    const Size stride = transposed(Size{shape[1] * shape[2], shape[2], 1}, p.transpose);
    LabelTarget to{labels, label_bytes, 0, {stride[0], stride[1], stride[2]}};
    for (int64_t a = 0; a < 3; ++a) to.offset += turned.first[a] * stride[a];
    writer = std::make_unique<LabelWriter>(model.network.classes, size, crop,
                                           plan_resampling(p.logits, target, spacing), p.regions, to);
    return LIGHTM_OK;
}

Size Segmentation::first_of(int64_t tile) const {
    const int64_t columns = int64_t(starts[2].size()), in_row = tiles_in_row();
    return {starts[0][size_t(tile / in_row)], starts[1][size_t(tile % in_row / columns)],
            starts[2][size_t(tile % columns)]};
}

void Segmentation::extract(int64_t tile, int64_t pass, float* input) const {
    const Size first = first_of(tile);
    const Mirroring& mirroring = mirrorings[size_t(pass)];
    const auto source = [&](int64_t a, int64_t i) {
        return first[a] + (mirroring[size_t(a)] ? patch_size[a] - 1 - i : i) - padding[a];
    };
    for (int64_t c = 0; c < model.network.input_channels; ++c)
        for (int64_t z = 0; z < patch_size[0]; ++z)
            for (int64_t y = 0; y < patch_size[1]; ++y) {
                const int64_t from_z = source(0, z), from_y = source(1, y);
                const bool inside = from_z >= 0 && from_z < size[0] && from_y >= 0 && from_y < size[1];
                const float* row = data.data() + ((c * size[0] + from_z) * size[1] + from_y) * size[2];
                for (int64_t x = 0; x < patch_size[2]; ++x) {
                    const int64_t from_x = source(2, x);
                    *input++ = inside && from_x >= 0 && from_x < size[2] ? row[from_x] : 0.0f;
                }
            }
}

void Segmentation::add(int64_t tile, int64_t pass, const float* logits) {
    sums->add(first_of(tile), mirrorings[size_t(pass)], logits, 1.0f / float(passes_of_tile() * model.folds));
}

int Segmentation::finish_row(int64_t row) {
    const int64_t last = row + 1 < rows() ? starts[0][size_t(row + 1)] : padded[0], plane = padded[1] * padded[2];
    const bool finite = sums->release(last, [&](int64_t z, const float* logits) {
        if (z >= padding[0] && z < padding[0] + size[0])
            writer->take(logits + padding[1] * padded[2] + padding[2], plane, padded[2]);
        return true;
    });
    return finite ? LIGHTM_OK : LIGHTM_BAD_LOGITS;
}
