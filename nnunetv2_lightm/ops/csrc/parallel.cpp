// Threads come from PyTorch's OpenMP runtime through its C entry point: an OpenMP runtime of our own would add a second
// pool that competes with PyTorch's for the cores. Without that runtime, threads are started for each call; so too in a
// forked process, whose copy of the parent's pool has no threads and would wait for them forever.
//
// Between two loops a team's threads wait in SpinWait: an OpenMP runtime's own waiting spins for milliseconds, during
// which other processes, such as nnU-Net's augmentation, cannot use the core.
#if !defined(NNUNETV2_LIGHTM_SINGLE_THREAD)

#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "errors.hpp"
#include "wait.hpp"

namespace {

std::atomic<OpenMPParallel> openmp{nullptr};

[[maybe_unused]] void forget_openmp() { openmp = nullptr; }

// One thread, the leader, posts loops; all threads execute their iterations. Each has its own share, the same part of
// every loop, so that what it wrote in one loop is in its cache in the next: passing data between cores without a
// common cache is several times slower than computing. Only a thread that has finished its share steals from the
// others.
class Team {
public:
    explicit Team(int64_t threads) : shares(threads) {}

    // Called by the leader. Loops of more than MAX_ITERATIONS must be split.
    void run(int64_t count, const std::function<void(int64_t, int64_t)>& loop) {
        body = &loop;
        left = count;
        const uint64_t number = (posts + 1) & FIELD, threads = shares.size();
        for (uint64_t w = 0; w < threads; ++w)
            shares[w].word = number << 48 | count * w / threads << 24 | count * (w + 1) / threads;
        posts = number;
        posted.notify();
        work(0);
        finished.wait([&] { return left == 0; });
    }
    void dismiss() {
        posts = STOP;
        posted.notify();
    }

    // Called by the other threads; returns when they are dismissed.
    void help() {
        const int64_t worker = ++workers;
        for (uint64_t seen = posts; seen != STOP; seen = posts) {
            work(worker);
            posted.wait([&] { return posts != seen; });
        }
    }

    static constexpr int64_t MAX_ITERATIONS = 1 << 22;
    const std::thread::id leader = std::this_thread::get_id();

private:
    // The loop's number and its first and last remaining iterations share one word, so that a late thread takes an
    // iteration of the current loop, or none.
    struct alignas(128) Share {
        std::atomic<uint64_t> word{0};

        // The owner takes the first remaining iteration, a thief the last; -1 if none is left.
        int64_t take(bool owner) {
            for (uint64_t seen = word;;) {
                const int64_t first = seen >> 24 & INDEX, last = seen & INDEX;
                if (first >= last) return -1;
                if (word.compare_exchange_weak(seen, owner ? seen + (uint64_t(1) << 24) : seen - 1))
                    return owner ? first : last - 1;
            }
        }
    };

    void work(int64_t worker) {
        int64_t done = 0;
        for (size_t i = 0; i < shares.size(); ++i) {
            Share& share = shares[(worker + i) % shares.size()];
            for (int64_t at = share.take(i == 0); at >= 0; at = share.take(i == 0), ++done) (*body)(at, worker);
        }
        if (done && left.fetch_sub(done) == done) finished.notify();
    }

    static constexpr uint64_t STOP = ~uint64_t(0), INDEX = (1 << 24) - 1, FIELD = (1 << 16) - 1;
    std::vector<Share> shares;
    std::atomic<uint64_t> posts{0};
    std::atomic<int64_t> left{0}, workers{0};
    std::atomic<const std::function<void(int64_t, int64_t)>*> body{nullptr};
    SpinWait posted, finished;
};

thread_local Team* current = nullptr;

struct Assignment {
    Team team;
    const std::function<void()>& work;
    FirstError error;

    void lead() {
        Team* const before = current;
        current = &team;
        error.capture(work, [] {});
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
#if defined(_WIN32)
    openmp = parallel;  // there is no fork
#else
    static const int registered = pthread_atfork(nullptr, nullptr, forget_openmp);
    if (registered == 0) openmp = parallel;
#endif
}

void with_threads(int64_t threads, const std::function<void()>& work) {
    if (threads <= 1 || current) return work();
    Assignment assignment{Team(threads), work, {}};
    if (const OpenMPParallel parallel = openmp) {
        parallel(join, &assignment, static_cast<unsigned>(threads), 0);
    } else {
        std::vector<std::thread> started;
        started.reserve(static_cast<size_t>(threads - 1));  // no thread may be lost on the way into the vector
        try {
            for (int64_t i = 1; i < threads; ++i) started.emplace_back(join, &assignment);
        } catch (const std::system_error&) {
            // The system has no more threads; those that run share all the work.
        } catch (const std::bad_alloc&) {
            // Nor, in this case, memory for one.
        }
        assignment.lead();
        for (std::thread& thread : started) thread.join();
    }
    assignment.error.rethrow();
}

void parallel_for(int64_t count, int64_t threads, const std::function<void(int64_t, int64_t)>& body) {
    if (threads <= 1 || count <= 1) {
        for (int64_t i = 0; i < count; ++i) body(i, 0);
    } else if (!current) {
        // All threads, even for fewer iterations: an OpenMP runtime ends those that a call leaves out.
        with_threads(threads, [&] { parallel_for(count, threads, body); });
    } else {
        for (int64_t first = 0; first < count; first += Team::MAX_ITERATIONS)
            current->run(std::min(Team::MAX_ITERATIONS, count - first),
                         [&](int64_t i, int64_t worker) { body(first + i, worker); });
    }
}

#endif
