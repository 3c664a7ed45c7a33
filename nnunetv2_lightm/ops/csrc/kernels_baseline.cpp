// Kernels for what every processor of the architecture has: SSE2 on x86-64, NEON on ARM.
#define VECTOR_BYTES 16
#include "kernels.hpp"

#if defined(__x86_64__)
#define NAME "SSE2"
#elif defined(__aarch64__)
#define NAME "NEON"
#else
#define NAME "baseline"
#endif

const InstructionSet* baseline_kernels() {
    static constexpr InstructionSet set = kernels(NAME);
    return &set;
}
