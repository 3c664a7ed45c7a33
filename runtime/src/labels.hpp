// From logits at the network's spacing to labels at the image's, plane by plane: never are the logits of a whole image
// in memory.
#pragma once

#include <functional>
#include <vector>

#include "resample.hpp"

// Where the labels go: voxel (z, y, x) of the cropped, transposed image is element offset + z * stride[0] + ...
struct LabelTarget {
    void* labels;
    int64_t label_bytes;  // 1 or 2
    int64_t offset, stride[3];
};

class LabelWriter {
public:
    // Logits of planes (classes, size[1], size[2]) are resampled to new_size; regions: see LightmPipeline, may be null.
    LabelWriter(int64_t classes, const Size& size, const Size& new_size, const ResamplingPlan& plan,
                const int64_t* regions, const LabelTarget& target);

    // The next plane, in their order from 0 to size[0] - 1; rows of `logits` are row_stride apart, classes
    // class_stride.
    void take(const float* logits, int64_t class_stride, int64_t row_stride);

private:
    void resample_plane(const float* logits, int64_t class_stride, int64_t row_stride, float* to) const;
    void write_plane(int64_t z, const float* first, const float* second, float weight);

    const int64_t classes;
    const Size size, new_size;
    const std::vector<LinearTap> taps[3];
    const int64_t* const regions;
    const LabelTarget target;
    Buffer<float> before, current;  // resampled planes, (classes, new_size[1], new_size[2])
    int64_t taken = 0, written = 0;
};
