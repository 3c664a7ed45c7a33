// Waiting for what other threads do: briefly awake, then asleep, so that other processes' work has the core.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <mutex>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

// Waits for a condition that another thread brings about and then announces.
class Signal {
public:
    template <class Condition>
    void wait(Condition condition) {
        for (int i = 0; i < SPINS; ++i) {
            if (condition()) return;
#if defined(__x86_64__)
            _mm_pause();
#endif
        }
        std::unique_lock<std::mutex> lock(mutex);
        ++sleepers;
        changed.wait(lock, condition);
        --sleepers;
    }
    void announce() {
        if (sleepers == 0) return;
        { const std::lock_guard<std::mutex> lock(mutex); }
        changed.notify_all();
    }

private:
    static constexpr int SPINS = 4000;  // some 50 microseconds
    std::mutex mutex;
    std::condition_variable changed;
    std::atomic<int> sleepers{0};
};

// Steps that threads take one after the other, in the order of their numbers, from 0.
class alignas(128) Turns {
public:
    // Until the first `count` turns have passed.
    void wait(int64_t count) {
        signal.wait([&] { return passed >= count; });
    }
    // Once all turns before it have.
    void pass(int64_t turn) {
        wait(turn);
        if (passed.compare_exchange_strong(turn, turn + 1)) signal.announce();
    }
    // Nobody waits any more.
    void abandon() {
        passed = std::numeric_limits<int64_t>::max();
        signal.announce();
    }

private:
    std::atomic<int64_t> passed{0};
    Signal signal;
};
