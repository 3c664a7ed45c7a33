// Loops shared among threads.
#pragma once

#include <cstdint>
#include <functional>

// The entry point of an OpenMP runtime that is already in the process: GOMP_parallel(function, data, threads, flags).
using OpenMPParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

// Uses this runtime's threads: PyTorch's, so that both share one pool.
void use_openmp(OpenMPParallel parallel);

// Runs work() with up to `threads` threads standing by for the loops in it. A loop outside starts threads of its own.
// Safe to call from several threads at once and in forked processes. work() may throw.
void with_threads(int64_t threads, const std::function<void()>& work);

// Calls body(i, worker) once for each i = 0 ... count - 1; worker < max(threads, 1) identifies the thread. The body
// must not throw. Inside with_threads(), whose `threads` must be the same, its threads divide the iterations: each
// starts with the same part of every loop, then steals what others have not begun.
void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t i, int64_t worker)>& body);
