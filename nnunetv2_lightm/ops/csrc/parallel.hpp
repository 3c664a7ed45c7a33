// Loops shared among threads.
#pragma once

#include <cstdint>
#include <functional>

// The entry point of an OpenMP runtime that is already in the process: GOMP_parallel(function, data, threads, flags).
using OpenMPParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Take the threads of this runtime (PyTorch's, so that its pool and ours are one and the same).
void use_openmp(OpenMPParallel parallel);

// Runs work() with up to `threads` threads at hand for the loops in it, which then need not start any. Loops outside
// start threads of their own. Safe from several threads at once and in forked processes. work() may throw.
void with_threads(int64_t threads, const std::function<void()>& work);

// Calls body(i, worker) for i = 0 ... count - 1, once each; worker < max(threads, 1) is the thread that does it. The body
// must not throw. Inside with_threads() it is shared among those threads, and `threads` must be theirs: each has the same part
// of every loop, and then takes what others have not begun.
void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t i, int64_t worker)>& body);
