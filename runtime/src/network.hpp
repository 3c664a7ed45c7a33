// LightMUNet's forward pass on the package's kernels.
#pragma once

#include <vector>

#include "lightm.h"
#include "maps.hpp"

// Elements of each tensor of a fold, in their order; names as in the state dict:
//   stem: pointwise.weight, .bias, depthwise.weight, .bias
//   each RVM layer, of the Encoder Blocks, then of the Bottleneck Block: see rvm_elements() in network.cpp
//   each Decoder Block, from the lowest resolution up: dwconv.weight, .bias, scale, halve.weight, .bias
//   head (decoder.seg_layers.0): depthwise.weight, .bias, pointwise.weight, .bias
std::vector<int64_t> tensor_elements(const LightmNetwork& network);

// Whether the numbers in it can be those of a network.
bool is_sound(const LightmNetwork& network);

// One fold. The tensors stay the caller's.
class Network {
public:
    Network(const LightmNetwork& network, const float* const* tensors);
    Network(Network&&) = default;  // not copied: parameters point into `states`

    // image: (input_channels, *size) -> logits: (classes, *size). Returns a LightmStatus.
    int forward(const float* image, const Size& size, float* logits, int64_t threads, Pool& pool) const;

private:
    struct RvmLayer {
        int64_t channels, out_channels;
        std::vector<const float*> parameters;  // in the order of the kernels' enum Parameter
    };
    struct Decoder {
        int64_t channels;
        const float *conv_weight, *conv_bias, *scale, *halve_bias;
        std::vector<float> halve;  // (channels, channels / 2)
    };
    struct Depthwise {
        const float *weight, *bias, *point_weight, *point_bias;
    };

    Size of_kernels(const Size& size) const;  // how the kernels see it: a 2D image has its height in depth
    int run_rvm(const RvmLayer& layer, const Map& in, const Size& pooling, int64_t threads, Pool& pool, Map& out) const;
    int run_depthwise(int64_t surroundings, const Depthwise& layer, const Size& size, const float* in, float* out,
                      int64_t channels, int64_t point_channels, const Size& map_size, int64_t threads) const;
    int decode(const Decoder& block, Map& map, const Map& skip, int64_t threads, Pool& pool) const;

    const LightmNetwork n;
    Depthwise stem{}, head{};
    std::vector<std::vector<RvmLayer>> encoder;
    std::vector<RvmLayer> bottleneck;
    std::vector<Decoder> decoder;
    std::vector<std::vector<float>> states;  // A = -exp(A_log) of every RVM layer
};
