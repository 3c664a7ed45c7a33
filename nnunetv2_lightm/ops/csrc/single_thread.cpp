// In place of parallel.cpp where there are no threads, such as in WebAssembly.
#if defined(NNUNETV2_LIGHTM_SINGLE_THREAD)

#include "parallel.hpp"

void use_openmp(OpenMPParallel) {}

void with_threads(int64_t, const std::function<void()>& work) { work(); }

void parallel_for(int64_t count, int64_t, const std::function<void(int64_t, int64_t)>& body) {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
}

#endif
