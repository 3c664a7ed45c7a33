// The kernels for a web page, in the place of csrc/api.cpp: forward passes in float32. Gradients and float64 would make
// the module twice as large.
#if defined(__wasm__)

#define VECTOR_BYTES 16
#include "errors.hpp"
#include "kernels_api.hpp"
#include "depthwise_kernels.hpp"
#include "pool.hpp"
#include "rvm_kernels.hpp"
#include "scan_kernels.hpp"

namespace {

constexpr int64_t FLOATS = LANES<float>;

constexpr InstructionSet forward_kernels() {
    InstructionSet set{};
    set.scan_float = {FLOATS, workspace_bytes<float>, forward<float>, nullptr};
    set.rvm_float.lanes = FLOATS;
    set.rvm_float.workspace_count = workspace_count<float>;
    set.rvm_float.project_rows = project_rows<float>;
    set.rvm_float.convolve_rows = convolve_rows<float>;
    set.rvm_float.finish_tokens = finish_tokens<float>;
    set.rvm_float.pool_rows = pool_rows<float>;
    set.depthwise_float = {FLOATS, depthwise_forward<float>, nullptr};
    return set;
}

constexpr InstructionSet FORWARD = forward_kernels();

}  // namespace

int nnunetv2_lightm_rvm(const RvmProblem* problem, int64_t, int64_t threads, int) {
    return status_of([&] { run_rvm_forward(*problem, FORWARD, threads); });
}

int nnunetv2_lightm_depthwise(const DepthwiseProblem* problem, int64_t, int64_t threads, int) {
    return status_of([&] { run_depthwise(*problem, FORWARD, threads, false); });
}

#endif
