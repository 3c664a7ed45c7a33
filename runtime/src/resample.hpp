// nnU-Net's resampling: skimage.transform.resize(mode="edge", anti_aliasing=False), which is
// scipy.ndimage.zoom(mode="nearest", grid_mode=True) clipped to the range of its input.
#pragma once

#include <vector>

#include "lightm.h"
#include "volume.hpp"

// What is done to each axis. A zoom is the tensor product of one-dimensional ones, so that axes follow one another.
struct ResamplingPlan {
    int64_t order[3];
    int64_t separate_axis;  // resampled after the planes across it, each of which is clipped by itself; -1: none
};

// nnunetv2/preprocessing/resampling/default_resampling.py, determine_do_sep_z_and_axis.
ResamplingPlan plan_resampling(const LightmResampling& how, const Spacing& spacing, const Spacing& new_spacing);

// Where an output voxel of one axis lies in the input, in voxels: scipy's coordinate under grid_mode.
inline double source_coordinate(int64_t at, int64_t size, int64_t new_size) {
    return double(size) / double(new_size) * (double(at) + 0.5) - 0.5;
}

// out = resized in; in and out do not overlap. T: float or double; each line is computed in double.
template <class T>
void resample(const T* in, const Size& size, T* out, const Size& new_size, const ResamplingPlan& plan);

// A line of orders 0 or 1: output i is in[first] * (1 - weight) + in[second] * weight.
struct LinearTap {
    int64_t first, second;
    double weight;
};
std::vector<LinearTap> linear_taps(int64_t size, int64_t new_size, int64_t order);
