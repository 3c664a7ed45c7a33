// Kernels for AVX-512.
#if defined(__AVX512F__) && defined(__AVX512DQ__)

#define VECTOR_BYTES 64
#include "kernels.hpp"

const InstructionSet* avx512_kernels() {
    static constexpr InstructionSet set = kernels("AVX-512");
    return &set;
}

#else

#include "scan.hpp"

const InstructionSet* avx512_kernels() { return nullptr; }

#endif
