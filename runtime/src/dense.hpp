// The little that the network needs besides the kernels: channels-last maps between Decoder Blocks. Loops are shared
// among threads as the kernels' are (parallel.hpp).
#pragma once

#include "volume.hpp"

// to += from.
void add(const float* from, float* to, int64_t count, int64_t threads);

// ReLU(conv + scale * x), equation (4), in the place of conv, (tokens, channels); times weights (channels,
// out_channels), plus bias.
void decoder_end(const float* x, const float* scale, float* conv, const float* weights, const float* bias, float* out,
                 int64_t tokens, int64_t channels, int64_t out_channels, int64_t threads);

// torch.nn.functional.interpolate(mode="bilinear" or "trilinear", align_corners=False) of (*size, channels).
void upsample(const float* in, const Size& size, float* out, const Size& new_size, int64_t channels, int64_t threads);
