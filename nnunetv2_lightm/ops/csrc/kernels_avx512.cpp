// The kernels for AVX-512.
#if defined(__AVX512F__) && defined(__AVX512DQ__)

#define VECTOR_BYTES 64
#include "scan_kernels.hpp"

const InstructionSet* avx512_kernels() {
    static constexpr InstructionSet set = {"AVX-512", KERNELS<float>, KERNELS<double>, apply<exp2_>, apply<softplus>,
                                           apply<sigmoid>};
    return &set;
}

#else

#include "scan.hpp"

const InstructionSet* avx512_kernels() { return nullptr; }

#endif
