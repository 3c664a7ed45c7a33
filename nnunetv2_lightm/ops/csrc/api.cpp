// The C interface.
#include <algorithm>
#include <vector>

#include "errors.hpp"
#include "export.hpp"
#include "parallel.hpp"
#include "processor.hpp"
#include "rvm.hpp"
#include "scan.hpp"

namespace {

// Instruction sets that this processor supports, fastest first.
const std::vector<const InstructionSet*>& instruction_sets() {
    static const std::vector<const InstructionSet*> sets = [] {
        std::vector<const InstructionSet*> found;
#if defined(__x86_64__)
        const Processor processor;
        if (processor.avx512) found.push_back(avx512_kernels());
        if (processor.avx2) found.push_back(avx2_kernels());
#endif
        found.push_back(baseline_kernels());
        found.erase(std::remove(found.begin(), found.end(), nullptr), found.end());
        return found;
    }();
    return sets;
}

}  // namespace

EXPORT int64_t nnunetv2_lightm_chunk_length() { return CHUNK; }

EXPORT void nnunetv2_lightm_use_openmp(OpenMPParallel parallel) { use_openmp(parallel); }

// Name of the index-th instruction set, fastest first; null past the last one.
EXPORT const char* nnunetv2_lightm_instruction_set(int64_t index) {
    return index < int64_t(instruction_sets().size()) ? instruction_sets()[index]->name : nullptr;
}

// Batch, length, channels and states must be positive. Returns 0, or 1 if memory runs out.
EXPORT int nnunetv2_lightm_scan(const ScanProblem* problem, int64_t instruction_set, int64_t threads, int backward) {
    const InstructionSet& set = *instruction_sets()[instruction_set];
    return status_of([&] { run_scan(*problem, set, threads, backward); });
}

// Number of checkpoints for each entry of the batch.
EXPORT int64_t nnunetv2_lightm_rvm_checkpoints(const RvmProblem* problem) { return rvm_checkpoints(*problem); }

// All sizes must be positive. Returns 0, or 1 if memory runs out.
EXPORT int nnunetv2_lightm_rvm(const RvmProblem* problem, int64_t instruction_set, int64_t threads, int backward) {
    const InstructionSet& set = *instruction_sets()[instruction_set];
    return status_of(
        [&] { backward ? run_rvm_backward(*problem, set, threads) : run_rvm_forward(*problem, set, threads); });
}

// Likewise.
EXPORT int nnunetv2_lightm_depthwise(const DepthwiseProblem* problem, int64_t instruction_set, int64_t threads,
                                     int backward) {
    return status_of([&] { run_depthwise(*problem, *instruction_sets()[instruction_set], threads, backward); });
}

// function: 0 for 2^x, 1 for the softplus, 2 for the sigmoid. count must be a multiple of 16.
EXPORT void nnunetv2_lightm_apply(int function, int64_t instruction_set, const float* in, float* out, int64_t count) {
    const InstructionSet& set = *instruction_sets()[instruction_set];
    const VectorFunction functions[] = {set.exp2, set.softplus, set.sigmoid};
    functions[function](in, out, count);
}
