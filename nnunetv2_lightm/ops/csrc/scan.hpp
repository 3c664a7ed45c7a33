// What the parts of the library share: the problem as Python describes it, and the kernels of one instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "depthwise_problem.hpp"
#include "rvm.hpp"
#include "wait.hpp"

// A (batch, length, k) tensor whose last axis is contiguous; strides count elements.
struct Rows {
    const void* data;
    int64_t batch_stride;
    int64_t token_stride;
};

// One selective scan, forward or backward; mirrored field by field in backends/native_interface.py.
// All pointers are to float or, with is_double, to double. Absent tensors are null. Outputs are contiguous.
struct ScanProblem {
    int64_t batch, length, channels, states;
    int64_t delta_rank;  // if not 0, delta is low-rank: its rows (delta_rank) times delta_weight (delta_rank, channels)
    int32_t is_double, delta_softplus;
    int32_t resume;      // forward: every chunk starts from its checkpoint, which is read and not written
    int32_t accumulate;  // backward: grad_A, grad_D and grad_delta_bias are added to
    Rows u, delta, B, C, z, grad_y;
    const void *A, *D, *delta_bias, *delta_weight, *grad_last;
    const void* first_state;  // (batch, channels, states), as last_state
    void* checkpoints;  // (batch, chunks, states, channels): written by the forward pass, read by the backward pass
    void *y, *last_state;
    void *grad_u, *grad_delta, *grad_A, *grad_B, *grad_C, *grad_D, *grad_z, *grad_delta_bias, *grad_first_state;
};

// Tokens between two checkpoints; also the kernels' tile, which fits in the L1 cache.
constexpr int64_t CHUNK = 64;

// What one kernel call covers: one block of `lanes` channels, tokens first ... last - 1; first is a multiple of CHUNK.
// Without `emit` it computes only the state (or the state's gradient) at the far end.
struct Span {
    int64_t batch, block, first, last;
    bool emit;
};

// Where a backward call writes the gradients that are sums. B and C: (length, states) of the span's batch entry, added
// to or overwritten. sums: (states + 2, lanes), gradients of A, then D, then delta_bias, always overwritten.
struct GradientSums {
    void *grad_B, *grad_C, *sums;
    bool add;
};

// State arrays are (states, lanes), 64-byte aligned. The span's step sizes are added to dt_sum (lanes) unless it is
// null.
using ForwardKernel = void (*)(const ScanProblem&, const Span&, void* state, void* dt_sum, void* workspace);
using BackwardKernel = void (*)(const ScanProblem&, const Span&, void* grad_state, void* dt_sum,
                                const GradientSums& sums, void* workspace);
using VectorFunction = void (*)(const float* in, float* out, int64_t count);

struct Kernels {
    int64_t lanes;
    size_t (*workspace_bytes)(int64_t states);
    ForwardKernel forward;
    BackwardKernel backward;
};

struct InstructionSet {
    const char* name;
    Kernels scan_float, scan_double;
    RvmKernels<float> rvm_float;
    RvmKernels<double> rvm_double;
    DepthwiseKernels<float> depthwise_float;
    DepthwiseKernels<double> depthwise_double;
    VectorFunction exp2, softplus, sigmoid;  // for tests of their error; count is a multiple of lanes
};

// Null if the compiler could not target the instruction set.
const InstructionSet* avx512_kernels();
const InstructionSet* avx2_kernels();
const InstructionSet* baseline_kernels();

// Links one scan into a chain of scans that pass on one state: each block of channels waits for the previous link, then
// reads first_state (backward: grad_last) and writes last_state (grad_first_state).
struct StateChain {
    Sequencer* blocks = nullptr;  // one a block of channels; null: the scan stands alone
    int64_t link = 0;
};

// Runs a scan on up to `threads` threads; a link of a chain on one. Throws std::bad_alloc.
void run_scan(const ScanProblem& problem, const InstructionSet& set, int64_t threads, bool backward,
              StateChain chain = {});

// RVM layers and depthwise convolutions, likewise.
int64_t rvm_checkpoints(const RvmProblem& problem);
void run_rvm_forward(const RvmProblem& problem, const InstructionSet& set, int64_t threads);
void run_rvm_backward(const RvmProblem& problem, const InstructionSet& set, int64_t threads);
void run_depthwise(const DepthwiseProblem& problem, const InstructionSet& set, int64_t threads, bool backward);
