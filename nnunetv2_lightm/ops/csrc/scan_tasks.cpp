// Partitions a scan into tasks for the threads and combines their results.
#include <algorithm>
#include <cmath>

#include "memory.hpp"
#include "parallel.hpp"
#include "scan.hpp"

namespace {

// How a scan is partitioned: blocks of channels into groups, the sequence into segments of whole chunks.
struct Partition {
    int64_t groups, segments;
};

// The fastest partition if a task's time is proportional to its (block, token) pairs. A sequence of several segments is
// scanned twice; the first pass computes states only, for all segments but one, at `first_pass` of the cost.
Partition best_partition(int64_t batch, int64_t blocks, int64_t chunks, int64_t threads, int64_t max_groups,
                         double first_pass) {
    Partition best{1, 1};
    double least = INFINITY;
    for (int64_t groups = 1; groups <= max_groups; ++groups) {
        for (int64_t segments = 1; segments <= std::min(chunks, 2 * threads); ++segments) {
            const double task = double(ceil_div(blocks, groups)) / double(segments);
            const double time = task * (ceil_div(batch * groups * segments, threads) +
                                        first_pass * ceil_div(batch * groups * (segments - 1), threads));
            if (time < least * 0.95) least = time, best = {groups, segments};
        }
    }
    return best;
}

template <class T>
class Scan {
public:
    Scan(const ScanProblem& problem, const Kernels& kernels, int64_t threads, StateChain chain)
        : p(problem),
          k(kernels),
          chain(chain),
          threads(small(problem) || chain.blocks ? 1 : std::max<int64_t>(threads, 1)),
          lanes(kernels.lanes),
          blocks(ceil_div(problem.channels, kernels.lanes)),
          chunks(ceil_div(problem.length, CHUNK)) {}

    void forward() {
        // Blocks share no sums, so that each can be a group of its own.
        partition = best_partition(p.batch, blocks, chunks, threads, blocks, p.resume ? 0.0 : 0.7);
        prepare();
        if (!chain.blocks)
            for_blocks([&](int64_t batch, int64_t block) { read_state(p.first_state, batch, block, 0); });
        if (partition.segments > 1 && !p.resume) {
            run(0, partition.segments - 1, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
                k.forward(p, span(batch, block, segment, false), state(batch, block, segment + 1),
                          dt_sum(batch, block, segment), workspace);
            });
            for_blocks([&](int64_t batch, int64_t block) {
                for (int64_t s = p.first_state ? 0 : 1; s + 1 < partition.segments; ++s)
                    carry_state(block, dt_sum(batch, block, s), state(batch, block, s), state(batch, block, s + 1));
            });
        }
        run(0, partition.segments, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
            await_state(p.first_state, batch, block);
            k.forward(p, span(batch, block, segment, true), state(batch, block, segment), nullptr, workspace);
            if (segment + 1 == partition.segments) write_state(p.last_state, batch, block, segment);
        });
    }

    void backward() {
        // The blocks of a group accumulate their gradients of B and C in one buffer; the first group's is the output.
        partition = best_partition(p.batch, blocks, chunks, threads, std::min(blocks, threads), 0.3);
        prepare();
        const int64_t matrix = p.batch * p.length * p.states, sums_size = (p.states + 2) * lanes;
        const Memory extra = allocate(2 * (partition.groups - 1) * matrix * sizeof(T));
        const Memory sums = allocate(p.batch * blocks * partition.segments * sums_size * sizeof(T));
        T* extra_B = reinterpret_cast<T*>(extra.get());
        T* extra_C = extra_B + (partition.groups - 1) * matrix;
        const auto sums_of = [&](int64_t batch, int64_t block, int64_t segment) {
            return reinterpret_cast<T*>(sums.get()) + index_of(batch, block, segment) * sums_size;
        };

        if (!chain.blocks)
            for_blocks(
                [&](int64_t batch, int64_t block) { read_state(p.grad_last, batch, block, partition.segments - 1); });
        if (partition.segments > 1) {
            run(1, partition.segments, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
                k.backward(p, span(batch, block, segment, false), state(batch, block, segment - 1),
                           dt_sum(batch, block, segment), {}, workspace);
            });
            for_blocks([&](int64_t batch, int64_t block) {
                for (int64_t s = partition.segments - 1; s > 0; --s)
                    carry_state(block, dt_sum(batch, block, s), state(batch, block, s), state(batch, block, s - 1));
            });
        }
        run(0, partition.segments, [&](int64_t batch, int64_t block, int64_t segment, void* workspace) {
            const int64_t group = group_of(block), at = batch * p.length * p.states + (group - 1) * matrix;
            T* grad_B = group ? extra_B + at : static_cast<T*>(p.grad_B) + at + matrix;
            T* grad_C = group ? extra_C + at : static_cast<T*>(p.grad_C) + at + matrix;
            await_state(p.grad_last, batch, block);
            k.backward(p, span(batch, block, segment, true), state(batch, block, segment), nullptr,
                       {grad_B, grad_C, sums_of(batch, block, segment), block != first_block(group)}, workspace);
            if (segment == 0) write_state(p.grad_first_state, batch, block, segment);
        });

        for (int64_t group = 1; group < partition.groups; ++group) {
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
                    for (int64_t segment = 0; segment < partition.segments; ++segment)
                        sum += sums_of(batch, channel / lanes, segment)[which * lanes + channel % lanes];
                return sum;
            };
            const auto put = [&](void* gradient, int64_t at, int64_t which) {
                T& target = static_cast<T*>(gradient)[at];
                target = total(which) + (p.accumulate ? target : T(0));
            };
            for (int64_t n = 0; n < p.states; ++n) put(p.grad_A, channel * p.states + n, n);
            if (p.grad_D) put(p.grad_D, channel, p.states);
            if (p.grad_delta_bias) put(p.grad_delta_bias, channel, p.states + 1);
        }
    }

private:
    // Starting threads would take longer than the scan itself.
    static bool small(const ScanProblem& p) { return p.batch * p.length * p.channels * p.states < 1 << 15; }

    // Zero states for every block of every batch entry and its segments, and a workspace for each thread.
    void prepare() {
        const int64_t states_count = p.batch * blocks * partition.segments;
        states = allocate(states_count * (p.states + 1) * lanes * sizeof(T));
        std::fill_n(reinterpret_cast<T*>(states.get()), states_count * (p.states + 1) * lanes, T(0));
        workspace_bytes = ceil_div(k.workspace_bytes(p.states), 64) * 64;
        workspaces = allocate(workspace_bytes * threads);
    }

    int64_t index_of(int64_t batch, int64_t block, int64_t segment) const {
        return (batch * blocks + block) * partition.segments + segment;
    }
    // The state a segment starts from; in the backward pass the gradient of the state it ends in. (states, lanes)
    T* state(int64_t batch, int64_t block, int64_t segment) const {
        return reinterpret_cast<T*>(states.get()) + index_of(batch, block, segment) * p.states * lanes;
    }
    T* dt_sum(int64_t batch, int64_t block, int64_t segment) const {
        return state(p.batch, 0, 0) + index_of(batch, block, segment) * lanes;
    }

    int64_t first_block(int64_t group) const { return group * blocks / partition.groups; }
    int64_t group_of(int64_t block) const { return ((block + 1) * partition.groups - 1) / blocks; }

    Span span(int64_t batch, int64_t block, int64_t segment, bool emit) const {
        const auto token = [&](int64_t s) { return std::min(s * chunks / partition.segments * CHUNK, p.length); };
        return {batch, block, token(segment), token(segment + 1), emit};
    }

    // Distributes task(batch, block, segment, workspace) over the threads; the blocks of a group run in order.
    template <class Task>
    void run(int64_t first_segment, int64_t last_segment, Task task) {
        const int64_t segments = last_segment - first_segment;
        parallel_for(p.batch * partition.groups * segments, threads, [&](int64_t i, int64_t worker) {
            [[maybe_unused]] const DenormalsAreZero<T> mode;
            const int64_t segment = first_segment + i % segments, group = i / segments % partition.groups;
            void* workspace = workspaces.get() + worker * workspace_bytes;
            for (int64_t block = first_block(group); block < first_block(group + 1); ++block)
                task(i / segments / partition.groups, block, segment, workspace);
        });
    }

    template <class Task>
    void for_blocks(Task task) {
        for (int64_t batch = 0; batch < p.batch; ++batch)
            for (int64_t block = 0; block < blocks; ++block) task(batch, block);
    }

    // to += exp(dt_sum A) * from: the part of a segment's initial state that survives to the next segment.
    void carry_state(int64_t block, const T* dt_sum, const T* from, T* to) {
        for (int64_t lane = 0; lane < std::min(lanes, p.channels - block * lanes); ++lane)
            for (int64_t n = 0; n < p.states; ++n) {
                const T A = static_cast<const T*>(p.A)[(block * lanes + lane) * p.states + n];
                // A sum of many large steps may be infinite.
                const T survives = A == 0 ? T(1) : std::exp(dt_sum[lane] * A);
                to[n * lanes + lane] += survives * from[n * lanes + lane];
            }
    }

    // Copies a segment's state, (states, lanes), from or to a (batch, channels, states) tensor, which may be null.
    void read_state(const void* tensor, int64_t batch, int64_t block, int64_t segment) {
        if (tensor)
            for_states(batch, block, [&](int64_t outside, int64_t inside) {
                state(batch, block, segment)[inside] = static_cast<const T*>(tensor)[outside];
            });
    }
    void write_state(void* tensor, int64_t batch, int64_t block, int64_t segment) {
        if (tensor)
            for_states(batch, block, [&](int64_t outside, int64_t inside) {
                static_cast<T*>(tensor)[outside] = state(batch, block, segment)[inside];
            });
        if (chain.blocks) chain.blocks[block].complete(chain.link);
    }
    void await_state(const void* tensor, int64_t batch, int64_t block) {
        if (!chain.blocks) return;
        chain.blocks[block].wait_for(chain.link);
        read_state(tensor, batch, block, 0);
    }
    template <class F>
    void for_states(int64_t batch, int64_t block, F f) {
        for (int64_t lane = 0; lane < std::min(lanes, p.channels - block * lanes); ++lane)
            for (int64_t n = 0; n < p.states; ++n)
                f((batch * p.channels + block * lanes + lane) * p.states + n, n * lanes + lane);
    }

    const ScanProblem& p;
    const Kernels& k;
    const StateChain chain;
    const int64_t threads, lanes, blocks, chunks;
    Partition partition{1, 1};
    Memory states, workspaces;
    int64_t workspace_bytes = 0;
};

template <class T>
void run(const ScanProblem& problem, const Kernels& kernels, int64_t threads, bool backward, StateChain chain) {
    Scan<T> scan(problem, kernels, threads, chain);
    backward ? scan.backward() : scan.forward();
}

}  // namespace

void run_scan(const ScanProblem& problem, const InstructionSet& set, int64_t threads, bool backward, StateChain chain) {
    problem.is_double ? run<double>(problem, set.scan_double, threads, backward, chain)
                      : run<float>(problem, set.scan_float, threads, backward, chain);
}
