// nnU-Net's DefaultPreprocessor up to the resampling: crop to what is not 0, normalise.
#pragma once

#include "lightm.h"
#include "volume.hpp"

// Bounds [first, last) on each axis.
struct Box {
    Size first, last;
    Size size() const { return {last[0] - first[0], last[1] - first[1], last[2] - first[2]}; }
};

// Of the voxels that are not 0 in any channel; the whole image if there are none. image: (channels, *size).
Box nonzero_box(const float* image, int64_t channels, const Size& size);

// 1 where a voxel is not 0 in any channel, or enclosed by such voxels: scipy.ndimage.binary_fill_holes in 3D.
void nonzero_mask(const float* image, int64_t channels, const Size& size, uint8_t* mask);

// In place; mask is read where the channel says so. Returns a LightmStatus.
int normalise(float* image, int64_t count, const LightmChannel& channel, const uint8_t* mask);
