// Threads come from PyTorch's OpenMP runtime through its C entry point; linking an OpenMP runtime of our own would bring
// a second pool that competes with PyTorch's for the cores. Where there is none, and in a forked process, whose copy of
// the parent's pool has no threads and would wait for them for ever, threads are started for the call.
//
// Between two loops the threads of a team wait by themselves: an OpenMP runtime's own waiting spins for milliseconds, in
// which other processes' work, such as nnU-Net's augmentation, has no core.
#include "parallel.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#include <pthread.h>

#include "signal.hpp"

namespace {

std::atomic<OpenMPParallel> openmp{nullptr};

void forget_openmp() { openmp = nullptr; }

// One thread, the leader, posts loops; all threads take their iterations. Each has a share of its own, the same part of
// every loop, so that what it wrote in one loop it finds in its cache in the next: cores that share no cache pass data on
// several times as slowly as they compute. Only a thread that is through with its share takes from the others'.
class Team {
public:
    explicit Team(int64_t threads) : shares(threads) {}

    // The leader's part. Loops of more than MOST iterations must be cut.
    void run(int64_t count, const std::function<void(int64_t, int64_t)>& loop) {
        body = &loop;
        left = count;
        const uint64_t number = (posts + 1) & FIELD, threads = shares.size();
        for (uint64_t w = 0; w < threads; ++w)
            shares[w].word = number << 48 | count * w / threads << 24 | count * (w + 1) / threads;
        posts = number;
        posted.announce();
        work(0);
        finished.wait([&] { return left == 0; });
    }
    void dismiss() {
        posts = STOP;
        posted.announce();
    }

    // The other threads' part, until they are dismissed.
    void help() {
        const int64_t worker = ++workers;
        for (uint64_t seen = posts; seen != STOP; seen = posts) {
            work(worker);
            posted.wait([&] { return posts != seen; });
        }
    }

    static constexpr int64_t MOST = 1 << 22;
    const std::thread::id leader = std::this_thread::get_id();

private:
    // The number of the loop and the first and the last of the iterations that are left are one word, so that a thread
    // that comes late takes an iteration of the loop that it finds, or none.
    struct alignas(128) Share {
        std::atomic<uint64_t> word{0};

        // The next iteration of the owner, the last one of another thread; -1 where none is left.
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
        if (done && left.fetch_sub(done) == done) finished.announce();
    }

    static constexpr uint64_t STOP = ~uint64_t(0), INDEX = (1 << 24) - 1, FIELD = (1 << 16) - 1;
    std::vector<Share> shares;
    std::atomic<uint64_t> posts{0};
    std::atomic<int64_t> left{0}, workers{0};
    std::atomic<const std::function<void(int64_t, int64_t)>*> body{nullptr};
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
    Assignment assignment{Team(threads), work, {}};
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
