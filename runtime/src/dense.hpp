// The little that the network needs besides the kernels: channels-last maps between Decoder Blocks.
#pragma once

#include "volume.hpp"

// to += from.
void add(const float* from, float* to, int64_t count);

// conv = ReLU(conv + scale * x), equation (4); (tokens, channels).
void scale_add_relu(const float* x, const float* scale, float* conv, int64_t tokens, int64_t channels);

// (tokens, channels) times weights (channels, out_channels), plus bias.
void pointwise(const float* in, const float* weights, const float* bias, float* out, int64_t tokens, int64_t channels,
               int64_t out_channels);

// torch.nn.functional.interpolate(mode="bilinear" or "trilinear", align_corners=False) of (*size, channels).
void upsample(const float* in, const Size& size, float* out, const Size& new_size, int64_t channels);
