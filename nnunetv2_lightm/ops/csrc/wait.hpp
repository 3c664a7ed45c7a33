// Waiting for other threads: spin briefly, then sleep, so that other processes can use the core.
#pragma once

#include <atomic>
#include <cstdint>
#include <limits>

#if !defined(NNUNETV2_LIGHTM_SINGLE_THREAD)
#include <condition_variable>
#include <mutex>
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(NNUNETV2_LIGHTM_SINGLE_THREAD)

// Steps run in order, so that what one waits for has always happened.
class SpinWait {
public:
    template <class Condition>
    void wait(Condition) {}
    void notify() {}
};

#else

// Waits for a condition that another thread makes true before it calls notify().
class SpinWait {
public:
    template <class Condition>
    void wait(Condition condition) {
        for (int i = 0; i < SPINS; ++i) {
            if (condition()) return;
#if defined(__x86_64__)
            _mm_pause();
#elif defined(__aarch64__)
            __asm__ volatile("isb");  // as long as x86's pause, unlike yield
#endif
        }
        std::unique_lock<std::mutex> lock(mutex);
        ++sleepers;
        changed.wait(lock, condition);
        --sleepers;
    }
    void notify() {
        if (sleepers == 0) return;
        {
            const std::lock_guard<std::mutex> lock(mutex);
        }
        changed.notify_all();
    }

private:
    static constexpr int SPINS = 4000;  // about 50 microseconds
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<int> sleepers{0};
};

#endif

// Steps 0, 1, 2, ... that threads complete strictly in that order.
class alignas(128) Sequencer {
public:
    // Waits until steps 0 ... count - 1 are complete.
    void wait_for(int64_t count) {
        waiting.wait([&] { return completed >= count; });
    }
    // Waits until all earlier steps are complete, then completes this one.
    void complete(int64_t step) {
        wait_for(step);
        if (completed.compare_exchange_strong(step, step + 1)) waiting.notify();
    }
    // After an error: no thread waits any longer.
    void release_all() {
        completed = std::numeric_limits<int64_t>::max();
        waiting.notify();
    }

private:
    std::atomic<int64_t> completed{0};
    SpinWait waiting;
};
