// The C interface of the engine.
#include "lightm.h"

#include <algorithm>
#if !defined(NNUNETV2_LIGHTM_SINGLE_THREAD)
#include <thread>
#endif

#include "errors.hpp"
#include "half.hpp"
#include "network.hpp"
#include "segmentation.hpp"

namespace {

// Memory that is not there becomes a status.
template <class F>
int guarded(F f) {
    int status = LIGHTM_OK;
    return status_of([&] { status = f(); }) ? int(LIGHTM_NO_MEMORY) : status;
}

// Of any number that a caller names: more threads than cores would only wait for one another.
int64_t bounded([[maybe_unused]] int64_t threads) {
#if defined(NNUNETV2_LIGHTM_SINGLE_THREAD)
    return 1;
#else
    return std::clamp<int64_t>(threads, 1, std::max(1u, std::thread::hardware_concurrency()));
#endif
}

Size size_of(const int64_t values[3]) { return {values[0], values[1], values[2]}; }
Spacing spacing_of(const double values[3]) { return {values[0], values[1], values[2]}; }

int segment(const LightmModel& model, const float* image, const Size& shape, const Spacing& spacing, void* labels,
            int64_t label_bytes, int64_t threads, LightmProgress progress, void* user) {
    Segmentation work(model, shape, spacing, labels, label_bytes);
    if (const int status = work.prepare(image)) return status;
    std::vector<Network> folds;
    const int64_t tensors = lightm_tensor_count(&model.network);
    for (int64_t fold = 0; fold < model.folds; ++fold)
        folds.emplace_back(model.network, model.tensors + fold * tensors);

    const int64_t patch = voxels(work.patch());
    const Buffer<float> input(model.network.input_channels * patch), logits(model.network.classes * patch);
    const int64_t tiles = work.tiles_in_row(), total = work.rows() * tiles * work.passes_of_tile() * model.folds;
    Pool pool;
    int64_t done = 0;
    const auto cancelled = [&] { return progress && progress(user, done, total) != 0; };
    if (cancelled()) return LIGHTM_CANCELLED;
    for (int64_t row = 0; row < work.rows(); ++row) {
        for (int64_t tile = row * tiles; tile < (row + 1) * tiles; ++tile)
            for (int64_t pass = 0; pass < work.passes_of_tile(); ++pass) {
                work.extract(tile, pass, input.data());
                for (const Network& fold : folds) {
                    if (const int status = fold.forward(input.data(), work.patch(), logits.data(), threads, pool))
                        return status;
                    work.add(tile, pass, logits.data());
                    ++done;
                    if (cancelled()) return LIGHTM_CANCELLED;
                }
            }
        if (const int status = work.finish_row(row)) return status;
    }
    return LIGHTM_OK;
}

template <class T>
int resample_with(const T* in, const int64_t shape[3], const double spacing[3], T* out, const int64_t new_shape[3],
                  const double new_spacing[3], const LightmResampling* how) {
    return guarded([&]() -> int {
        const ResamplingPlan plan = plan_resampling(*how, spacing_of(spacing), spacing_of(new_spacing));
        resample(in, size_of(shape), out, size_of(new_shape), plan);
        return LIGHTM_OK;
    });
}

}  // namespace

int lightm_is_sound(const LightmModel* model) {
    return model->folds >= 1 && is_sound(model->network) && is_sound(model->pipeline, model->network);
}

int64_t lightm_tensor_count(const LightmNetwork* network) {
    return is_sound(*network) ? int64_t(tensor_elements(*network).size()) : -1;
}

int64_t lightm_tensor_elements(const LightmNetwork* network, int64_t index) {
    return tensor_elements(*network)[size_t(index)];
}

int lightm_segment(const LightmModel* model, const float* image, const int64_t shape[3], const double spacing[3],
                   void* labels, int64_t label_bytes, int64_t threads, LightmProgress progress, void* user) {
    return guarded([&]() -> int {
        const Size size = size_of(shape);
        const bool sizes = std::min({size[0], size[1], size[2]}) > 0;
        const bool spacings = spacing[0] > 0.0 && spacing[1] > 0.0 && spacing[2] > 0.0;
        if (!sizes || !spacings || !lightm_is_sound(model) || !labels_fit(*model, label_bytes))
            return LIGHTM_BAD_ARGUMENT;
        return segment(*model, image, size, spacing_of(spacing), labels, label_bytes, bounded(threads), progress,
                       user);
    });
}

int lightm_forward(const LightmNetwork* network, const float* const* tensors, const float* image, const int64_t size[3],
                   float* logits, int64_t threads) {
    return guarded([&]() -> int {
        const Size patch = size_of(size);
        if (!is_sound(*network) || std::min({patch[0], patch[1], patch[2]}) < 1) return LIGHTM_BAD_ARGUMENT;
        if (network->spatial_dims == 2 && patch[0] != 1) return LIGHTM_BAD_ARGUMENT;
        Pool pool;
        return Network(*network, tensors).forward(image, patch, logits, bounded(threads), pool);
    });
}

void lightm_resampled_size(const LightmModel* model, const float* image, const int64_t shape[3],
                           const double spacing[3], double size[3]) {
    const std::array<double, 3> found = resampled_size(*model, image, size_of(shape), spacing_of(spacing));
    std::copy(found.begin(), found.end(), size);
}

int lightm_resample(const double* in, const int64_t shape[3], const double spacing[3], double* out,
                    const int64_t new_shape[3], const double new_spacing[3], const LightmResampling* how) {
    return resample_with(in, shape, spacing, out, new_shape, new_spacing, how);
}

int lightm_resample_float(const float* in, const int64_t shape[3], const double spacing[3], float* out,
                          const int64_t new_shape[3], const double new_spacing[3], const LightmResampling* how) {
    return resample_with(in, shape, spacing, out, new_shape, new_spacing, how);
}

void lightm_crop(const float* image, int64_t channels, const int64_t shape[3], int64_t bounds[6]) {
    const Box box = nonzero_box(image, channels, size_of(shape));
    for (int64_t a = 0; a < 3; ++a) bounds[2 * a] = box.first[a], bounds[2 * a + 1] = box.last[a];
}

int lightm_normalise(float* image, int64_t count, const LightmChannel* channel, const uint8_t* mask) {
    return normalise(image, count, *channel, mask);
}

int lightm_mask(const float* image, int64_t channels, const int64_t shape[3], uint8_t* mask) {
    return guarded([&]() -> int {
        nonzero_mask(image, channels, size_of(shape), mask);
        return LIGHTM_OK;
    });
}

void lightm_gaussian(const int64_t patch[3], int64_t dims, double sigma, float* weights) {
    const Buffer<float> values = window_weights(size_of(patch), dims, sigma);
    std::copy_n(values.data(), voxels(size_of(patch)), weights);
}

int64_t lightm_window_starts(int64_t size, int64_t patch, double step, int64_t* starts) {
    const std::vector<int64_t> found = window_starts(size, patch, step);
    if (starts) std::copy(found.begin(), found.end(), starts);
    return int64_t(found.size());
}

int lightm_labels(const float* logits, int64_t classes, const int64_t shape[3], const double spacing[3],
                  const int64_t new_shape[3], const double new_spacing[3], const LightmResampling* how,
                  const int64_t* regions, uint16_t* labels) {
    return guarded([&]() -> int {
        const Size size = size_of(shape), new_size = size_of(new_shape);
        const ResamplingPlan plan = plan_resampling(*how, spacing_of(spacing), spacing_of(new_spacing));
        const LabelTarget to{labels, 2, 0, {new_size[1] * new_size[2], new_size[2], 1}};
        LabelWriter writer(classes, size, new_size, plan, regions, to);
        const int64_t plane = size[1] * size[2];
        for (int64_t z = 0; z < size[0]; ++z) writer.take(logits + z * plane, size[0] * plane, size[2]);
        return LIGHTM_OK;
    });
}

void lightm_half_to_float(const uint16_t* in, float* out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[i] = half_to_float(in[i]);
}
