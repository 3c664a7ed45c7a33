// All kernels of the instruction set that VECTOR_BYTES and the compiler's flags stand for.
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
