// nnU-Net's prediction of one image, cut into passes of the network: the caller runs them, one after the other or, as
// the web page does, side by side within a row of tiles.
#pragma once

#include <memory>

#include "labels.hpp"
#include "preprocess.hpp"
#include "window.hpp"

// Whether the numbers in it can be those of a pipeline.
bool is_sound(const LightmPipeline& pipeline, const LightmNetwork& network);

// Whether every label of a sound model can be written in so many bytes; there are labels of 1 and 2.
bool labels_fit(const LightmModel& model, int64_t label_bytes);

// Voxels of each axis of the image to which it is resampled after cropping; with a wrong spacing more than an integer
// holds.
std::array<double, 3> resampled_size(const LightmModel& model, const float* image, const Size& shape,
                                     const Spacing& spacing);

class Segmentation {
public:
    // labels: shape, written as the planes become complete; 0 outside of what is not 0 in the image.
    Segmentation(const LightmModel& model, const Size& shape, const Spacing& spacing, void* labels,
                 int64_t label_bytes);

    // Crops, normalises and resamples; image: (input_channels, *shape). Returns a LightmStatus.
    int prepare(const float* image);

    // Tiles of row r are r * tiles_in_row ... ; each has passes_of_tile mirrored passes, for each of the folds.
    int64_t rows() const { return int64_t(starts[0].size()); }
    int64_t tiles_in_row() const { return int64_t(starts[1].size() * starts[2].size()); }
    int64_t passes_of_tile() const { return int64_t(mirrorings.size()); }
    const Size& patch() const { return patch_size; }

    // Input of a pass, (input_channels, *patch).
    void extract(int64_t tile, int64_t pass, float* input) const;
    // Its logits, (classes, *patch); of every fold.
    void add(int64_t tile, int64_t pass, const float* logits);
    // After the last pass of a row: writes the labels of the planes that are complete. Returns a LightmStatus.
    int finish_row(int64_t row);

private:
    int plan_size(const Size& crop);
    Size first_of(int64_t tile) const;

    const LightmModel& model;
    const LightmPipeline& p;
    const Size shape;
    const Spacing spacing, target;  // of the image and to resample to; transposed
    void* const labels;
    const int64_t label_bytes;
    const Size patch_size;
    std::vector<Mirroring> mirrorings;
    std::vector<int64_t> starts[3];
    Size size{}, padding{}, padded{};  // resampled; zeros before it; with zeros around it
    Buffer<float> data;                // (input_channels, *size)
    std::unique_ptr<TileSums> sums;
    std::unique_ptr<LabelWriter> writer;
};
