// Cuts a scan into tasks for the threads and puts their results together.
#include <algorithm>
#include <cmath>

#include "memory.hpp"
#include "parallel.hpp"
#include "scan.hpp"

namespace {

// How a scan is cut: blocks of channels into groups, the sequence into segments of whole chunks.
struct Cut {
    int64_t groups, segments;
};

// The cut that takes the least time if a task takes as long as it has (block, token) pairs. A cut sequence is scanned
// twice, the first time for the states alone, all segments but one, at `first_pass` of the cost.
Cut best_cut(int64_t batch, int64_t blocks, int64_t chunks, int64_t threads, int64_t most_groups, double first_pass) {
    Cut best{1, 1};
    double least = INFINITY;
    for (int64_t groups = 1; groups <= most_groups; ++groups) {
        for (int64_t segments = 1; segments <= std::min(chunks, 2 * threads); ++segments) {
            const double task = double(divided_up(blocks, groups)) / double(segments);
            const double time = task * (divided_up(batch * groups * segments, threads) +
                                        first_pass * divided_up(batch * groups * (segments - 1), threads));
            if (time < least * 0.95) least = time, best = {groups, segments};
        }
    }
    return best;
}

template <class T>
class Scan {
public:
    Scan(const ScanProblem& problem, const Kernels& kernels, int64_t threads, Relay relay)
        : p(problem),
          k(kernels),
          relay(relay),
          threads(small(problem) || relay.blocks ? 1 : std::max<int64_t>(threads, 1)),
          lanes(kernels.lanes),
          blocks(divided_up(problem.channels, kernels.lanes)),
          chunks(divided_up(problem.length, CHUNK)) {}

    void forward() {
        // A task needs no more than one block, and no sums are shared between blocks.
        cut = best_cut(p.batch, blocks, chunks, threads, blocks, p.resume ? 0.0 : 0.7);
        prepare();
        if (!relay.blocks) for_chains([&](int64_t batch, int64_t block) { receive(p.first_state, batch, block, 0); });
        if (cut.segments > 1 && !p.resume) {
            run(0, cut.segments - 1, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
                k.forward(p, span(batch, block, segment, false), state(batch, block, segment + 1),
                          dt_sum(batch, block, segment), workspace);
            });
            for_chains([&](int64_t batch, int64_t block) {
                for (int64_t s = p.first_state ? 0 : 1; s + 1 < cut.segments; ++s)
                    pass_on(block, dt_sum(batch, block, s), state(batch, block, s), state(batch, block, s + 1));
            });
        }
        run(0, cut.segments, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
            await_turn(p.first_state, batch, block);
            k.forward(p, span(batch, block, segment, true), state(batch, block, segment), nullptr, workspace);
            if (segment + 1 == cut.segments) give(p.last_state, batch, block, segment);
        });
    }

    void backward() {
        // Blocks of one group add their gradients of B and C up in one buffer; the first group's is the output itself.
        cut = best_cut(p.batch, blocks, chunks, threads, std::min(blocks, threads), 0.3);
        prepare();
        const int64_t matrix = p.batch * p.length * p.states, sums_size = (p.states + 2) * lanes;
        const Memory extra = allocate(2 * (cut.groups - 1) * matrix * sizeof(T));
        const Memory sums = allocate(p.batch * blocks * cut.segments * sums_size * sizeof(T));
        T* extra_B = reinterpret_cast<T*>(extra.get());
        T* extra_C = extra_B + (cut.groups - 1) * matrix;
        const auto sums_of = [&](int64_t batch, int64_t block, int64_t segment) {
            return reinterpret_cast<T*>(sums.get()) + chain(batch, block, segment) * sums_size;
        };

        if (!relay.blocks)
            for_chains([&](int64_t batch, int64_t block) { receive(p.grad_last, batch, block, cut.segments - 1); });
        if (cut.segments > 1) {
            run(1, cut.segments, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
                k.backward(p, span(batch, block, segment, false), state(batch, block, segment - 1),
                           dt_sum(batch, block, segment), {}, workspace);
            });
            for_chains([&](int64_t batch, int64_t block) {
                for (int64_t s = cut.segments - 1; s > 0; --s)
                    pass_on(block, dt_sum(batch, block, s), state(batch, block, s), state(batch, block, s - 1));
            });
        }
        run(0, cut.segments, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
            const int64_t group = group_of(block), at = batch * p.length * p.states + (group - 1) * matrix;
            T* grad_B = group ? extra_B + at : static_cast<T*>(p.grad_B) + at + matrix;
            T* grad_C = group ? extra_C + at : static_cast<T*>(p.grad_C) + at + matrix;
            await_turn(p.grad_last, batch, block);
            k.backward(p, span(batch, block, segment, true), state(batch, block, segment), nullptr,
                       {grad_B, grad_C, sums_of(batch, block, segment), block != first_block(group)}, workspace);
            if (segment == 0) give(p.grad_first_state, batch, block, segment);
        });

        for (int64_t group = 1; group < cut.groups; ++group) {
            parallel_for(p.batch * chunks, threads, [&](int64_t i, int64_t) {
                const int64_t from = matrix * i / (p.batch * chunks), to = matrix * (i + 1) / (p.batch * chunks);
                for (int64_t j = from; j < to; ++j) {
                    static_cast<T*>(p.grad_B)[j] += extra_B[(group - 1) * matrix + j];
                    static_cast<T*>(p.grad_C)[j] += extra_C[(group - 1) * matrix + j];
                }
            });
        }
        for (int64_t channel = 0; channel < p.channels; ++channel) {
            const auto total = [&](int64_t which) {
                T sum = 0;
                for (int64_t batch = 0; batch < p.batch; ++batch)
                    for (int64_t segment = 0; segment < cut.segments; ++segment)
                        sum += sums_of(batch, channel / lanes, segment)[which * lanes + channel % lanes];
                return sum;
            };
            const auto put = [&](void* gradient, int64_t at, int64_t which) {
                T& place = static_cast<T*>(gradient)[at];
                place = total(which) + (p.accumulate ? place : T(0));
            };
            for (int64_t n = 0; n < p.states; ++n) put(p.grad_A, channel * p.states + n, n);
            if (p.grad_D) put(p.grad_D, channel, p.states);
            if (p.grad_delta_bias) put(p.grad_delta_bias, channel, p.states + 1);
        }
    }

private:
    // Starting threads would take longer than the scan.
    static bool small(const ScanProblem& p) { return p.batch * p.length * p.channels * p.states < 1 << 15; }

    // Zero states for all chains (a block of a batch entry) and segments, and a workspace for each thread.
    void prepare() {
        const int64_t chains = p.batch * blocks * cut.segments;
        states = allocate(chains * (p.states + 1) * lanes * sizeof(T));
        std::fill_n(reinterpret_cast<T*>(states.get()), chains * (p.states + 1) * lanes, T(0));
        workspace_bytes = divided_up(k.workspace_bytes(p.states), 64) * 64;
        workspaces = allocate(workspace_bytes * threads);
    }

    int64_t chain(int64_t batch, int64_t block, int64_t segment) const {
        return (batch * blocks + block) * cut.segments + segment;
    }
    // The state a segment starts from; in the backward pass the gradient of the state it ends with. (states, lanes)
    T* state(int64_t batch, int64_t block, int64_t segment) const {
        return reinterpret_cast<T*>(states.get()) + chain(batch, block, segment) * p.states * lanes;
    }
    T* dt_sum(int64_t batch, int64_t block, int64_t segment) const {
        return state(p.batch, 0, 0) + chain(batch, block, segment) * lanes;
    }

    int64_t first_block(int64_t group) const { return group * blocks / cut.groups; }
    int64_t group_of(int64_t block) const { return ((block + 1) * cut.groups - 1) / blocks; }

    Span span(int64_t batch, int64_t block, int64_t segment, bool emit) const {
        const auto token = [&](int64_t s) { return std::min(s * chunks / cut.segments * CHUNK, p.length); };
        return {batch, block, token(segment), token(segment + 1), emit};
    }

    // Shares task(batch, block, segment, workspace) among the threads; the blocks of a group follow one another.
    template <class Task>
    void run(int64_t first_segment, int64_t last_segment, Task task) {
        const int64_t segments = last_segment - first_segment;
        parallel_for(p.batch * cut.groups * segments, threads, [&](int64_t i, int64_t worker) {
            [[maybe_unused]] const DenormalsAreZero<T> mode;
            const int64_t segment = first_segment + i % segments, group = i / segments % cut.groups;
            void* workspace = workspaces.get() + worker * workspace_bytes;
            for (int64_t block = first_block(group); block < first_block(group + 1); ++block)
                task(i / segments / cut.groups, block, segment, workspace);
        });
    }

    template <class Task>
    void for_chains(Task task) {
        for (int64_t batch = 0; batch < p.batch; ++batch)
            for (int64_t block = 0; block < blocks; ++block) task(batch, block);
    }

    // to += exp(dt_sum A) * from: what a segment hands on to the next one of the state it is given.
    void pass_on(int64_t block, const T* dt_sum, const T* from, T* to) {
        for (int64_t lane = 0; lane < std::min(lanes, p.channels - block * lanes); ++lane)
            for (int64_t n = 0; n < p.states; ++n) {
                const T A = static_cast<const T*>(p.A)[(block * lanes + lane) * p.states + n];
                to[n * lanes + lane] += std::exp(dt_sum[lane] * A) * from[n * lanes + lane];
            }
    }

    // The state of a segment, (states, lanes), from a (batch, channels, states) tensor, which may be null, or to it.
    void receive(const void* tensor, int64_t batch, int64_t block, int64_t segment) {
        if (tensor)
            for_states(batch, block, [&](int64_t outside, int64_t inside) {
                state(batch, block, segment)[inside] = static_cast<const T*>(tensor)[outside];
            });
    }
    void give(void* tensor, int64_t batch, int64_t block, int64_t segment) {
        if (tensor)
            for_states(batch, block, [&](int64_t outside, int64_t inside) {
                static_cast<T*>(tensor)[outside] = state(batch, block, segment)[inside];
            });
        if (relay.blocks) relay.blocks[block].pass(relay.turn);
    }
    void await_turn(const void* tensor, int64_t batch, int64_t block) {
        if (!relay.blocks) return;
        relay.blocks[block].wait(relay.turn);
        receive(tensor, batch, block, 0);
    }
    template <class F>
    void for_states(int64_t batch, int64_t block, F f) {
        for (int64_t lane = 0; lane < std::min(lanes, p.channels - block * lanes); ++lane)
            for (int64_t n = 0; n < p.states; ++n)
                f((batch * p.channels + block * lanes + lane) * p.states + n, n * lanes + lane);
    }

    const ScanProblem& p;
    const Kernels& k;
    const Relay relay;
    const int64_t threads, lanes, blocks, chunks;
    Cut cut{1, 1};
    Memory states, workspaces;
    int64_t workspace_bytes = 0;
};

template <class T>
void run(const ScanProblem& problem, const Kernels& kernels, int64_t threads, bool backward, Relay relay) {
    Scan<T> scan(problem, kernels, threads, relay);
    backward ? scan.backward() : scan.forward();
}

}  // namespace

void run_scan(const ScanProblem& problem, const InstructionSet& set, int64_t threads, bool backward, Relay relay) {
    problem.is_double ? run<double>(problem, set.of_double, threads, backward, relay)
                      : run<float>(problem, set.of_float, threads, backward, relay);
}
