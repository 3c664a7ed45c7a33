// The kernels for AVX2 and FMA.
#if defined(__AVX2__) && defined(__FMA__)

#define VECTOR_BYTES 32
#include "scan_kernels.hpp"

const InstructionSet* avx2_kernels() {
    static constexpr InstructionSet set = {"AVX2", KERNELS<float>, KERNELS<double>, apply<exp2_>, apply<softplus>,
                                           apply<sigmoid>};
    return &set;
}

#else

#include "scan.hpp"

const InstructionSet* avx2_kernels() { return nullptr; }

#endif
