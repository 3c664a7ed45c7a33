// Threads come from PyTorch's OpenMP runtime through its C entry point; linking an OpenMP runtime of our own would bring
// a second pool that competes with PyTorch's for the cores. Where there is none, and in a forked process, whose copy of
// the parent's pool has no threads and would wait for them for ever, threads are started for the call.
//
// Between two loops the threads of a team wait by themselves, briefly spinning and then asleep: an OpenMP runtime's own
// waiting spins for milliseconds, in which other processes' work, such as nnU-Net's augmentation, has no core.
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

std::atomic<OpenMPParallel> openmp{nullptr};

void forget_openmp() { openmp = nullptr; }

// Waits for a condition that another thread brings about and then announces: awake at first, then asleep.
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

// One thread, the leader, posts loops; all threads take their iterations.
class Team {
public:
    // The leader's part. Loops of more than MOST iterations must be cut.
    void run(int64_t count, const std::function<void(int64_t, int64_t)>& loop) {
        body = &loop;
        done = 0;
        generation = (generation + 1) & FIELD;
        ticket = generation << 48 | uint64_t(count) << 24;
        posted.announce();
        take(ticket, 0);
        finished.wait([&] { return done == count; });
    }
    void dismiss() {
        ticket = STOP;
        posted.announce();
    }

    // The other threads' part, until they are dismissed.
    void help() {
        const int64_t worker = ++workers;
        for (uint64_t seen = take(ticket, worker); seen != STOP; seen = take(ticket, worker))
            posted.wait([&] { return (ticket >> 24) != (seen >> 24); });
    }

    static constexpr int64_t MOST = 1 << 22;
    const std::thread::id leader = std::this_thread::get_id();

private:
    // The number of the loop, its iterations and the next one to be taken are one word, so that a thread that comes late
    // takes an iteration of the loop that it finds, or none. Returns the word it found exhausted.
    uint64_t take(uint64_t seen, int64_t worker) {
        for (;;) {
            if (seen == STOP || int64_t(seen & INDEX) >= int64_t(seen >> 24 & INDEX)) return seen;
            if (!ticket.compare_exchange_weak(seen, seen + 1)) continue;
            const int64_t count = seen >> 24 & INDEX;
            (*body)(seen & INDEX, worker);
            if (++done == count) finished.announce();
            seen = ticket;
        }
    }

    static constexpr uint64_t STOP = ~uint64_t(0), INDEX = (1 << 24) - 1, FIELD = (1 << 15) - 1;
    std::atomic<uint64_t> ticket{0};
    std::atomic<int64_t> done{0}, workers{0};
    std::atomic<const std::function<void(int64_t, int64_t)>*> body{nullptr};
    uint64_t generation = 0;
    Signal posted, finished;
};

thread_local Team* current = nullptr;

struct Assignment {
    Team team;
    const std::function<void()>& work;
    std::exception_ptr error;

    void lead() {
        Team* const before = current;
        current = &team;
        try {
            work();
        } catch (...) {
            error = std::current_exception();
        }
        current = before;
        team.dismiss();
    }
};

void join(void* data) {
    Assignment& assignment = *static_cast<Assignment*>(data);
    std::this_thread::get_id() == assignment.team.leader ? assignment.lead() : assignment.team.help();
}

}  // namespace

void use_openmp(OpenMPParallel parallel) {
    static const int registered = pthread_atfork(nullptr, nullptr, forget_openmp);
    if (registered == 0) openmp = parallel;
}

void with_threads(int64_t threads, const std::function<void()>& work) {
    if (threads <= 1 || current) return work();
    Assignment assignment{{}, work, {}};
    if (const OpenMPParallel parallel = openmp) {
        parallel(join, &assignment, static_cast<unsigned>(threads), 0);
    } else {
        std::vector<std::thread> started;
        try {
            for (int64_t i = 1; i < threads; ++i) started.emplace_back(join, &assignment);
        } catch (const std::system_error&) {
            // The system gives no more threads; those that run share all the work.
        }
        assignment.lead();
        for (std::thread& thread : started) thread.join();
    }
    if (assignment.error) std::rethrow_exception(assignment.error);
}

void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t, int64_t)>& body) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i) body(i, 0);
    } else if (!current) {
        // All threads, even for fewer iterations: an OpenMP runtime ends those that one call leaves out.
        with_threads(threads, [&] { parallel_for(count, threads, body); });
    } else {
        for (int64_t first = 0; first < count; first += Team::MOST)
            current->run(std::min(Team::MOST, count - first),
                         [&](int64_t i, int64_t worker) { body(first + i, worker); });
    }
}
