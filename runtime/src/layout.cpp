// The structures of lightm.h as this library was compiled with them.
#include <cstddef>

#include "lightm.h"

namespace {

struct Place {
    const char* name;
    int64_t offset, bytes;
};

#define WHOLE(structure) {#structure, 0, sizeof(structure)}
#define FIELD(structure, field) {#structure "." #field, offsetof(structure, field), sizeof(structure::field)}

constexpr Place PLACES[] = {
    WHOLE(LightmNetwork),
    FIELD(LightmNetwork, spatial_dims),
    FIELD(LightmNetwork, input_channels),
    FIELD(LightmNetwork, classes),
    FIELD(LightmNetwork, features),
    FIELD(LightmNetwork, levels),
    FIELD(LightmNetwork, bottleneck_layers),
    FIELD(LightmNetwork, expand),
    FIELD(LightmNetwork, states),
    FIELD(LightmNetwork, rvm_layers),
    FIELD(LightmNetwork, pooling),
    WHOLE(LightmChannel),
    FIELD(LightmChannel, scheme),
    FIELD(LightmChannel, use_mask),
    FIELD(LightmChannel, mean),
    FIELD(LightmChannel, std),
    FIELD(LightmChannel, lower),
    FIELD(LightmChannel, upper),
    WHOLE(LightmResampling),
    FIELD(LightmResampling, order),
    FIELD(LightmResampling, order_z),
    FIELD(LightmResampling, force_separate_z),
    FIELD(LightmResampling, anisotropy_threshold),
    WHOLE(LightmPipeline),
    FIELD(LightmPipeline, patch),
    FIELD(LightmPipeline, transpose),
    FIELD(LightmPipeline, spacing),
    FIELD(LightmPipeline, data),
    FIELD(LightmPipeline, logits),
    FIELD(LightmPipeline, step),
    FIELD(LightmPipeline, sigma),
    FIELD(LightmPipeline, mirror),
    FIELD(LightmPipeline, channels),
    FIELD(LightmPipeline, regions),
    WHOLE(LightmModel),
    FIELD(LightmModel, network),
    FIELD(LightmModel, pipeline),
    FIELD(LightmModel, folds),
    FIELD(LightmModel, tensors),
};

}  // namespace

const char* lightm_layout(int64_t index, int64_t* offset, int64_t* bytes) {
    if (index < 0 || index >= int64_t(sizeof PLACES / sizeof *PLACES)) return nullptr;
    *offset = PLACES[index].offset;
    *bytes = PLACES[index].bytes;
    return PLACES[index].name;
}
