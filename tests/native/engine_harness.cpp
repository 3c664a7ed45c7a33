// Runs the engine of lightm-runtime on models and images that are made here, the same on every platform:
//
//     engine_harness LIBRARY write FILE      writes what it computes
//     engine_harness LIBRARY compare FILE    compares that with what another platform has written
//
// Exit code: 0 if all outputs agree, 1 if one does not, 2 if a file cannot be read.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <vector>

#include "library.hpp"
#include "lightm.h"

namespace {

constexpr double LOGITS_TOLERANCE = 1e-4;  // of the largest one
constexpr double LABELS_THAT_MAY_DIFFER = 1e-3;

// Numbers between -1 and 1, the same everywhere.
class Numbers {
public:
    float next() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return float(int32_t(state >> 32)) / 2147483648.0f;
    }
    std::vector<float> many(int64_t count, float scale) {
        std::vector<float> made(count);
        for (float& value : made) value = scale * next();
        return made;
    }

private:
    uint64_t state = 1;
};

struct Engine {
    explicit Engine(const char* path) : library(open_library(path)) {
        elements = reinterpret_cast<decltype(elements)>(function(library, "lightm_tensor_elements"));
        count = reinterpret_cast<decltype(count)>(function(library, "lightm_tensor_count"));
        forward = reinterpret_cast<decltype(forward)>(function(library, "lightm_forward"));
        segment = reinterpret_cast<decltype(segment)>(function(library, "lightm_segment"));
    }
    void* library;
    decltype(&lightm_tensor_elements) elements;
    decltype(&lightm_tensor_count) count;
    decltype(&lightm_forward) forward;
    decltype(&lightm_segment) segment;
};

struct Result {
    std::vector<float> logits;
    std::vector<uint8_t> labels;
};

// A network of two levels with random weights: the logits of a patch, and the labels of an image that is resampled, cut
// into tiles and mirrored.
Result compute(const Engine& engine, int64_t dims, int64_t threads) {
    const bool flat = dims == 2;
    LightmNetwork network{};
    network.spatial_dims = dims;
    network.input_channels = 2;
    network.classes = 3;
    network.features = 32;
    network.levels = 2;
    network.bottleneck_layers = 1;
    network.expand = 2;
    network.states = 16;
    for (int64_t level = 0; level < network.levels; ++level) {
        network.rvm_layers[level] = 1;
        const int64_t pooling[3] = {flat ? 1 : 2, 2, 2};
        std::memcpy(network.pooling[level], pooling, sizeof pooling);
    }
    const int64_t tensors = engine.count(&network);
    if (tensors <= 0) fail("the engine does not take the network");
    Numbers numbers;
    std::vector<std::vector<float>> weights;
    std::vector<const float*> addresses;
    for (int64_t i = 0; i < tensors; ++i) weights.push_back(numbers.many(engine.elements(&network, i), 0.5f));
    for (const std::vector<float>& weight : weights) addresses.push_back(weight.data());

    Result result;
    const int64_t patch[3] = {flat ? 1 : 16, 24, 20};
    const int64_t voxels = patch[0] * patch[1] * patch[2];
    const std::vector<float> input = numbers.many(network.input_channels * voxels, 1.0f);
    result.logits.resize(network.classes * voxels);
    if (engine.forward(&network, addresses.data(), input.data(), patch, result.logits.data(), threads) != LIGHTM_OK)
        fail("lightm_forward failed");

    const LightmChannel channels[2] = {{LIGHTM_Z_SCORE, 0, 0, 1, 0, 0}, {LIGHTM_CT, 0, 0.1, 0.4, -0.8, 0.9}};
    LightmModel model{};
    model.network = network;
    LightmPipeline& pipeline = model.pipeline;
    std::memcpy(pipeline.patch, patch, sizeof patch);
    for (int64_t axis = 0; axis < 3; ++axis) {
        pipeline.transpose[axis] = axis;
        pipeline.spacing[axis] = 1.0;
        pipeline.mirror[axis] = axis == 2;
    }
    pipeline.data = {3, 0, -1, 3.0};
    pipeline.logits = {1, 0, -1, 3.0};
    pipeline.step = 0.5;
    pipeline.sigma = 0.125;
    pipeline.channels = channels;
    model.folds = 1;
    model.tensors = addresses.data();
    const int64_t shape[3] = {flat ? 2 : 13, 31, 37};
    const double spacing[3] = {flat ? 1.0 : 2.0, 0.9, 1.1};
    const std::vector<float> image = numbers.many(network.input_channels * shape[0] * shape[1] * shape[2], 1.0f);
    result.labels.resize(shape[0] * shape[1] * shape[2]);
    if (engine.segment(&model, image.data(), shape, spacing, result.labels.data(), 1, threads, nullptr, nullptr) !=
        LIGHTM_OK)
        fail("lightm_segment failed");
    return result;
}

std::string bytes(const Result& result) {
    const std::string logits(reinterpret_cast<const char*>(result.logits.data()), result.logits.size() * sizeof(float));
    return logits + std::string(result.labels.begin(), result.labels.end());
}

// Whether a result is the expected one; says what differs.
bool agrees(const Result& result, const char* expected, const char* name) {
    double largest = 0, error = 0;
    for (size_t i = 0; i < result.logits.size(); ++i) {
        float value;
        std::memcpy(&value, expected + i * sizeof value, sizeof value);
        largest = std::fmax(largest, std::fabs(double(value)));
        const double difference = std::fabs(double(result.logits[i]) - double(value));
        if (!(difference <= error)) error = difference;  // a NaN, too
    }
    const char* const labels = expected + result.logits.size() * sizeof(float);
    size_t others = 0, unlike_first = 0;
    for (size_t i = 0; i < result.labels.size(); ++i) {
        others += result.labels[i] != uint8_t(labels[i]);
        unlike_first += labels[i] != labels[0];
    }
    // An image of one label would compare nothing.
    const bool well = error <= LOGITS_TOLERANCE * largest && largest > 0 && unlike_first > 0 &&
                      others <= LABELS_THAT_MAY_DIFFER * result.labels.size();
    if (!well)
        std::printf("FAILED: %s: logits differ by %.3g of %.3g, %zu of %zu labels\n", name, error, largest, others,
                    result.labels.size());
    return well;
}

}  // namespace

int main(int count, char** arguments) {
    const std::string what = count == 4 ? arguments[2] : "";
    if (what != "write" && what != "compare") fail("engine_harness LIBRARY write|compare FILE");
    const Engine engine(arguments[1]);
    std::string expected;
    if (what == "compare") {
        std::ifstream file(arguments[3], std::ios::binary);
        if (!file) fail(std::string("cannot read ") + arguments[3]);
        expected.assign(std::istreambuf_iterator<char>(file), {});
    }
    std::string written;
    int passed = 0, failed = 0;
    size_t at = 0;
    for (const int64_t dims : {2, 3}) {
        for (const int64_t threads : {1, 3}) {
            const Result result = compute(engine, dims, threads);
            const std::string now = bytes(result);
            if (what == "write") {
                if (threads == 1) written += now;
                continue;
            }
            if (at + now.size() > expected.size()) fail("the file ends too early");
            const std::string name = std::to_string(dims) + "D, " + std::to_string(threads) + " threads";
            agrees(result, expected.data() + at, name.c_str()) ? ++passed : ++failed;
            if (threads == 3) at += now.size();
        }
    }
    if (what == "write") {
        std::ofstream file(arguments[3], std::ios::binary);
        file << written;
        return file.flush() ? 0 : 2;
    }
    std::printf("%d passed, %d failed\n", passed, failed);
    return failed || !passed ? 1 : 0;
}
