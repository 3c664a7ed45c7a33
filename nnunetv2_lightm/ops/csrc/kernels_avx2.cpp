// Kernels for AVX2 with FMA.
#if defined(__AVX2__) && defined(__FMA__)

#define VECTOR_BYTES 32
#include "kernels.hpp"

const InstructionSet* avx2_kernels() {
    static constexpr InstructionSet set = kernels("AVX2");
    return &set;
}

#else

#include "scan.hpp"

const InstructionSet* avx2_kernels() { return nullptr; }

#endif
