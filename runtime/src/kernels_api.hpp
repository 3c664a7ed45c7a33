// The kernels' C interface, csrc/api.cpp, and the structures that it takes.
#pragma once

#include "depthwise_problem.hpp"
#include "rvm.hpp"

extern "C" {
int nnunetv2_lightm_rvm(const RvmProblem* problem, int64_t instruction_set, int64_t threads, int backward);
int nnunetv2_lightm_depthwise(const DepthwiseProblem* problem, int64_t instruction_set, int64_t threads, int backward);
}

constexpr int64_t KERNEL_CHANNELS = CHANNEL_MULTIPLE;  // numbers of channels are multiples of it
