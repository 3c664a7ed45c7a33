// All kernels for the instruction set given by VECTOR_BYTES and the compiler's flags.
#pragma once

#include "depthwise_kernels.hpp"
#include "rvm_backward_kernels.hpp"
#include "scan_kernels.hpp"

namespace {

constexpr InstructionSet kernels(const char* name) {
    return {name,
            KERNELS<float>,
            KERNELS<double>,
            RVM_KERNELS<float>,
            RVM_KERNELS<double>,
            DEPTHWISE_KERNELS<float>,
            DEPTHWISE_KERNELS<double>,
            apply<exp2_>,
            apply<softplus>,
            apply<sigmoid>};
}

}  // namespace
