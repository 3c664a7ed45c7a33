#include "network.hpp"

#include <algorithm>
#include <cmath>

#include "dense.hpp"
#include "kernels_api.hpp"

namespace {

constexpr int64_t rank_of(int64_t channels) { return (channels + 15) / 16; }  // of delta, layers/vss.py

// Of an RVM layer, in the order of the kernels' enum Parameter, with A_log in the place of A.
std::vector<int64_t> rvm_elements(const LightmNetwork& n, int64_t channels, int64_t out_channels) {
    const int64_t inner = n.expand * channels, rank = rank_of(channels), taps = n.spatial_dims == 3 ? 27 : 9;
    return {
        channels,
        channels,  // norm_in.weight, .bias
        inner * channels,
        inner * channels,  // vssm.in_proj.weight, vssm.gate_proj.weight
        inner * taps,
        inner,                          // vssm.dwconv.weight, .bias
        (rank + 2 * n.states) * inner,  // vssm.ssms.0.x_proj.weight
        inner * rank,
        inner,  // vssm.ssms.0.dt_proj.weight, .bias
        inner * n.states,
        inner,  // vssm.ssms.0.A_log, .D
        inner,
        inner,             // vssm.norm.weight, .bias
        channels * inner,  // vssm.out_proj.weight
        channels,          // scale
        channels,
        channels,  // norm_out.weight, .bias
        out_channels * channels,
        out_channels,  // projection.weight, .bias
    };
}

int64_t width_of(const LightmNetwork& n, int64_t level) { return n.features << level; }

constexpr int64_t MOST_CHANNELS = 1 << 14;  // of a feature map: with patches as large as can be, products stay integers

}  // namespace

std::vector<int64_t> tensor_elements(const LightmNetwork& n) {
    const int64_t taps = n.spatial_dims == 3 ? 27 : 9;
    std::vector<int64_t> all{n.features * n.input_channels, n.features, n.features * taps, n.features};
    const auto append = [&](const std::vector<int64_t>& more) { all.insert(all.end(), more.begin(), more.end()); };
    for (int64_t level = 0; level < n.levels; ++level)
        for (int64_t i = 0; i < n.rvm_layers[level]; ++i)
            append(rvm_elements(n, width_of(n, level), width_of(n, level + (i + 1 == n.rvm_layers[level]))));
    for (int64_t i = 0; i < n.bottleneck_layers; ++i)
        append(rvm_elements(n, width_of(n, n.levels), width_of(n, n.levels)));
    for (int64_t level = n.levels; level > 0; --level) {
        const int64_t width = width_of(n, level);
        append({width * taps, width, width, width / 2 * width, width / 2});
    }
    append({n.features * taps, n.features, n.classes * n.features, n.classes});
    return all;
}

bool is_sound(const LightmNetwork& n) {
    const auto within = [](int64_t value, int64_t low, int64_t high) { return value >= low && value <= high; };
    bool sound = within(n.spatial_dims, 2, 3) && within(n.levels, 1, LIGHTM_MOST_LEVELS) &&
                 within(n.classes, 1, 4096) && within(n.input_channels, 1, 4096) &&
                 within(n.features, KERNEL_CHANNELS, 1024) && n.features % KERNEL_CHANNELS == 0 &&
                 within(n.expand, 1, 16) && within(n.states, 1, 256) && within(n.bottleneck_layers, 0, 64);
    for (int64_t level = 0; sound && level < n.levels; ++level) {
        sound = within(n.rvm_layers[level], 1, 64);
        for (const int64_t stride : n.pooling[level]) sound = sound && within(stride, 1, 64);
        sound = sound && (n.spatial_dims == 3 || n.pooling[level][0] == 1);
    }
    return sound && width_of(n, n.levels) <= MOST_CHANNELS;
}

Network::Network(const LightmNetwork& network, const float* const* tensors) : n(network) {
    const std::vector<int64_t> elements = tensor_elements(n);
    size_t at = 0;
    const auto next = [&] { return tensors[at++]; };
    const auto depthwise = [&](bool pointwise_first) {
        Depthwise layer{};
        if (pointwise_first) layer.point_weight = next(), layer.point_bias = next();
        layer.weight = next(), layer.bias = next();
        if (!pointwise_first) layer.point_weight = next(), layer.point_bias = next();
        return layer;
    };
    const auto rvm_layer = [&](int64_t channels, int64_t out_channels) {
        RvmLayer layer{channels, out_channels, {}};
        for (int64_t i = 0; i < PARAMETERS; ++i) {
            const int64_t count = elements[at];
            layer.parameters.push_back(next());
            if (i != A_MATRIX) continue;
            std::vector<float>& A = states.emplace_back();
            for (int64_t j = 0; j < count; ++j) A.push_back(-std::exp(layer.parameters.back()[j]));
            layer.parameters.back() = A.data();
        }
        return layer;
    };
    stem = depthwise(true);
    for (int64_t level = 0; level < n.levels; ++level) {
        encoder.emplace_back();
        for (int64_t i = 0; i < n.rvm_layers[level]; ++i)
            encoder.back().push_back(
                rvm_layer(width_of(n, level), width_of(n, level + (i + 1 == n.rvm_layers[level]))));
    }
    for (int64_t i = 0; i < n.bottleneck_layers; ++i)
        bottleneck.push_back(rvm_layer(width_of(n, n.levels), width_of(n, n.levels)));
    for (int64_t level = n.levels; level > 0; --level) {
        Decoder block{width_of(n, level), next(), next(), next(), nullptr, {}};
        const float* halve = next();
        block.halve_bias = next();
        const int64_t in = block.channels, out = in / 2;
        block.halve.resize(size_t(in * out));
        for (int64_t j = 0; j < out; ++j)
            for (int64_t k = 0; k < in; ++k) block.halve[size_t(k * out + j)] = halve[j * in + k];
        decoder.push_back(std::move(block));
    }
    head = depthwise(false);
}

Size Network::of_kernels(const Size& size) const { return n.spatial_dims == 3 ? size : Size{size[1], 1, size[2]}; }

int Network::forward(const float* image, const Size& size, float* logits, int64_t threads, Pool& pool) const {
    Map map = pool.map(size, n.features);
    if (run_depthwise(STEM, stem, size, image, map.data(), n.features, n.input_channels, {}, threads))
        return LIGHTM_NO_MEMORY;
    std::vector<Size> sizes;
    std::vector<Map> skips;
    for (int64_t level = 0; level < n.levels; ++level) {
        sizes.push_back(map.size);
        // The input of a level's first layer that is not a skip of the level before can go.
        const std::vector<RvmLayer>& layers = encoder[size_t(level)];
        const Map* in = level == 0 ? &map : &skips.back();
        Map between;
        for (size_t i = 0; i < layers.size(); ++i) {
            Size stride{1, 1, 1};
            if (i + 1 == layers.size())
                for (int64_t a = 0; a < 3; ++a) stride[a] = std::min(n.pooling[level][a], in->size[a]);
            Map out;
            if (run_rvm(layers[i], *in, stride, threads, pool, out)) return LIGHTM_NO_MEMORY;
            between = std::move(out);
            in = &between;
        }
        if (level == 0) map.values.reset();
        skips.push_back(std::move(between));
        map.size = skips.back().size;
    }
    const Map* in = &skips.back();
    for (const RvmLayer& layer : bottleneck) {
        Map out;
        if (run_rvm(layer, *in, {1, 1, 1}, threads, pool, out)) return LIGHTM_NO_MEMORY;
        map = std::move(out);
        in = &map;
    }
    if (bottleneck.empty()) {
        map = pool.map(in->size, in->channels);
        std::copy_n(in->data(), voxels(in->size) * in->channels, map.data());
    }
    for (int64_t level = n.levels - 1; level >= 0; --level) {
        const int status = decode(decoder[size_t(n.levels - 1 - level)], map, skips[size_t(level)], threads, pool);
        if (status) return status;
        skips[size_t(level)].values.reset();
        if (level == 0) break;
        Map finer = pool.map(sizes[size_t(level)], map.channels);
        upsample(map.data(), map.size, finer.data(), finer.size, map.channels, threads);
        map = std::move(finer);
    }
    return run_depthwise(HEAD, head, sizes[0], map.data(), logits, n.features, n.classes, map.size, threads)
               ? LIGHTM_NO_MEMORY
               : LIGHTM_OK;
}

int Network::run_rvm(const RvmLayer& layer, const Map& in, const Size& pooling, int64_t threads, Pool& pool,
                     Map& out) const {
    const Size size = of_kernels(in.size), stride = of_kernels(pooling);
    out = pool.map({in.size[0] / pooling[0], in.size[1] / pooling[1], in.size[2] / pooling[2]}, layer.out_channels);
    RvmProblem problem{};
    problem.batch = 1, problem.depth = size[0], problem.height = size[1], problem.width = size[2];
    problem.channels = layer.channels, problem.inner = n.expand * layer.channels;
    problem.out_channels = layer.out_channels, problem.states = n.states, problem.rank = rank_of(layer.channels);
    problem.kernel_height = n.spatial_dims == 3 ? 3 : 1;
    problem.pool_depth = stride[0], problem.pool_height = stride[1], problem.pool_width = stride[2];
    std::copy(layer.parameters.begin(), layer.parameters.end(), problem.parameter);
    problem.x = in.data(), problem.out = out.data();
    return nnunetv2_lightm_rvm(&problem, 0, threads, 0);
}

int Network::run_depthwise(int64_t surroundings, const Depthwise& layer, const Size& image_size, const float* in,
                           float* out, int64_t channels, int64_t point_channels, const Size& map_size,
                           int64_t threads) const {
    const Size size = of_kernels(image_size), map = of_kernels(map_size);
    DepthwiseProblem problem{};
    problem.surroundings = surroundings, problem.batch = 1;
    problem.depth = size[0], problem.height = size[1], problem.width = size[2];
    problem.channels = channels, problem.kernel_height = n.spatial_dims == 3 ? 3 : 1;
    problem.point_channels = point_channels;
    if (surroundings == HEAD) problem.map_depth = map[0], problem.map_height = map[1], problem.map_width = map[2];
    problem.conv_weight = layer.weight, problem.conv_bias = layer.bias;
    problem.point_weight = layer.point_weight, problem.point_bias = layer.point_bias;
    problem.in = in, problem.out = out;
    return nnunetv2_lightm_depthwise(&problem, 0, threads, 0);
}

// Equation (4), then half the channels.
int Network::decode(const Decoder& block, Map& map, const Map& skip, int64_t threads, Pool& pool) const {
    const int64_t tokens = voxels(map.size);
    add(skip.data(), map.data(), tokens * map.channels, threads);
    const Map conv = pool.map(map.size, map.channels);
    const Depthwise layer{block.conv_weight, block.conv_bias, nullptr, nullptr};
    if (run_depthwise(PLAIN, layer, map.size, map.data(), conv.data(), map.channels, 0, {}, threads))
        return LIGHTM_NO_MEMORY;
    Map halved = pool.map(map.size, map.channels / 2);
    decoder_end(map.data(), block.scale, conv.data(), block.halve.data(), block.halve_bias, halved.data(), tokens,
                map.channels, halved.channels, threads);
    map = std::move(halved);
    return LIGHTM_OK;
}
