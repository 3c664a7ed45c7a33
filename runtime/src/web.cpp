// What a web page needs besides lightm.h: the passes of a segmentation one by one, so that its workers, each with an
// instance of this module and memory of its own, can share them. Numbers are 32 bits wide: JavaScript has no others
// without BigInt.
#if defined(__wasm__)

#include <algorithm>

#include "network.hpp"
#include "segmentation.hpp"

#define WEB_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

Size size_of(const int64_t values[3]) { return {values[0], values[1], values[2]}; }

}  // namespace

// Memory that JavaScript fills and reads; null if there is not that much.
WEB_EXPORT void* lightm_web_allocate(size_t bytes) {
    return ::operator new(std::max<size_t>(bytes, 64), CACHE_LINE, std::nothrow);
}

WEB_EXPORT void lightm_web_free(void* memory) { ::operator delete(memory, CACHE_LINE); }

WEB_EXPORT int lightm_web_tensor_count(const LightmNetwork* network) { return int(lightm_tensor_count(network)); }

WEB_EXPORT int lightm_web_tensor_elements(const LightmNetwork* network, int index) {
    return int(lightm_tensor_elements(network, index));
}

// Null if sizes, orders or axes are outside of what the structures allow, or the model has labels that label_bytes cannot
// hold. labels: shape, of label_bytes each.
WEB_EXPORT Segmentation* lightm_web_begin(const LightmModel* model, const int64_t shape[3], const double spacing[3],
                                          void* labels, int label_bytes) {
    const bool sizes = *std::min_element(shape, shape + 3) > 0;
    const bool spacings = spacing[0] > 0.0 && spacing[1] > 0.0 && spacing[2] > 0.0;
    if (!sizes || !spacings || !lightm_is_sound(model) || !labels_fit(*model, label_bytes)) return nullptr;
    return new Segmentation(*model, size_of(shape), {spacing[0], spacing[1], spacing[2]}, labels, label_bytes);
}

WEB_EXPORT int lightm_web_prepare(Segmentation* work, const float* image) { return work->prepare(image); }
WEB_EXPORT int lightm_web_rows(const Segmentation* work) { return int(work->rows()); }
WEB_EXPORT int lightm_web_tiles_in_row(const Segmentation* work) { return int(work->tiles_in_row()); }
WEB_EXPORT int lightm_web_passes_of_tile(const Segmentation* work) { return int(work->passes_of_tile()); }

WEB_EXPORT void lightm_web_extract(const Segmentation* work, int tile, int pass, float* input) {
    work->extract(tile, pass, input);
}

WEB_EXPORT void lightm_web_add(Segmentation* work, int tile, int pass, const float* logits) {
    work->add(tile, pass, logits);
}

WEB_EXPORT int lightm_web_finish_row(Segmentation* work, int row) { return work->finish_row(row); }

// A fold; the tensors stay the caller's.
WEB_EXPORT Network* lightm_web_network(const LightmNetwork* network, const float* const* tensors) {
    return is_sound(*network) ? new Network(*network, tensors) : nullptr;
}

// (input_channels, *size) -> (classes, *size).
WEB_EXPORT int lightm_web_forward(const Network* network, const float* image, const int64_t size[3], float* logits) {
    Pool pool;
    return network->forward(image, size_of(size), logits, 1, pool);
}

#endif
