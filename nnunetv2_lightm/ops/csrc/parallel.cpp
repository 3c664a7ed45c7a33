// Threads come from PyTorch's OpenMP runtime through its C entry point; linking an OpenMP runtime of our own would bring
// a second pool that competes with PyTorch's for the cores. Where there is none, and in a forked process, whose copy of
// the parent's pool has no threads and would wait for them for ever, threads are started for the call.
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>

namespace {

std::atomic<OpenMPParallel> openmp{nullptr};

struct Loop {
    int64_t count;
    const std::function<void(int64_t, int64_t)>& body;
    std::atomic<int64_t> next{0}, workers{0};

    void work() {
        const int64_t worker = workers++;
        for (int64_t i = next++; i < count; i = next++) body(i, worker);
    }
};

void work(void* loop) { static_cast<Loop*>(loop)->work(); }

void forget_openmp() { openmp = nullptr; }

}  // namespace

void use_openmp(OpenMPParallel parallel) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_openmp);
    if (registered == 0) openmp = parallel;
}

void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t, int64_t)>& body) {
    threads = std::min(count, threads);
    Loop loop{count, body};
    const OpenMPParallel parallel = openmp;
    if (threads <= 1) {
        loop.work();
    } else if (parallel) {
        parallel(work, &loop, static_cast<unsigned>(threads), 0);
    } else {
        std::vector<std::thread> started;
        try {
            for (int64_t i = 1; i < threads; ++i) started.emplace_back(work, &loop);
        } catch (const std::system_error&) {
            // The system gives no more threads; those that run share all the work.
        }
        loop.work();
        for (std::thread& thread : started) thread.join();
    }
}
