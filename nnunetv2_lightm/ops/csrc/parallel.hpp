// A loop shared among threads.
#pragma once

#include <cstdint>
#include <functional>

// The entry point of an OpenMP runtime that is already in the process: GOMP_parallel(function, data, threads, flags).
using OpenMPParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Share loops among the threads of this runtime (PyTorch's, so that its pool and ours are one and the same).
void use_openmp(OpenMPParallel parallel);

// Calls body(i, worker) for i = 0 ... count - 1, once each; worker < max(threads, 1) is the thread that does it.
// Safe from several threads at once and in forked processes. The body must not throw.
void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t i, int64_t worker)>& body);
