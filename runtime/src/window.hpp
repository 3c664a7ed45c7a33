// The sliding window: where its tiles lie, what weight a voxel of a tile has, and the sums of their logits.
#pragma once

#include <vector>

#include "lightm.h"
#include "volume.hpp"

// Axes that are mirrored in a pass of the network.
using Mirroring = std::array<bool, 3>;

// nnunetv2/inference/sliding_window_prediction.py, compute_steps_for_sliding_window; size >= patch.
std::vector<int64_t> window_starts(int64_t size, int64_t patch, double step);

// compute_gaussian(value_scaling_factor=10), as float16 holds it. dims 2: patch[0] is 1 and has no part in it.
// sigma 0: 1 everywhere.
Buffer<float> window_weights(const Size& patch, int64_t dims, double sigma);

// Planes of an image to which tiles are added, no more of them than a tile is deep: tiles come in rows of one first
// plane, and once a row is through, the planes before the next row are complete.
class TileSums {
public:
    // size: of the padded image.
    TileSums(int64_t classes, const Size& size, const Size& patch, Buffer<float> weights);

    // Adds one of several passes over a tile, with its share of the tile's weight. logits: (classes, *patch), mirrored.
    void add(const Size& first, const Mirroring& mirroring, const float* logits, float share);

    // Calls take(plane, (classes, height, width) mean logits) for planes up to `last` - 1, in their order; false: it
    // returned false, or a logit is not finite.
    template <class F>
    bool release(int64_t last, F take) {
        for (; released < last; ++released)
            if (!divide(released) || !take(released, mean.data())) return false;
        return true;
    }

private:
    bool divide(int64_t plane);
    float* sum_of(int64_t c, int64_t plane) const {
        return sums.data() + (c * patch[0] + plane % patch[0]) * size[1] * size[2];
    }
    float* weight_of(int64_t plane) const { return weight_sums.data() + plane % patch[0] * size[1] * size[2]; }

    const int64_t classes;
    const Size size, patch;
    const Buffer<float> weights;
    Buffer<float> sums, weight_sums, mean;
    int64_t released = 0;
};
