// The forward pass of an RVM layer.
#include "rvm_layer.hpp"

namespace {

template <class T>
class RvmForward : RvmLayer<T> {
    using Layer = RvmLayer<T>;
    using Layer::k, Layer::p, Layer::pooling, Layer::s, Layer::slabs, Layer::state, Layer::threads;

public:
    RvmForward(const RvmProblem& problem, const RvmKernels<T>& kernels, const InstructionSet& set, int64_t threads)
        : Layer(problem, kernels, set, threads) {
        if (this->pooled()) this->arena.reserve(s.out, this->tokens() * p.out_channels);
        this->prepare();
    }

    void run() {
        const int64_t pooled = (p.depth / p.pool_depth) * (p.height / p.pool_height) * (p.width / p.pool_width);
        use_huge_pages(p.out, p.batch * pooled * p.out_channels * sizeof(T));
        if (p.checkpoints)
            use_huge_pages(p.checkpoints, p.batch * slabs.count() * slabs.chunks * p.states * p.inner * sizeof(T));
        with_threads(threads, [&] { run_slabs(); });
    }

private:
    void run_slabs() {
        for (int64_t batch = 0; batch < p.batch; ++batch) {
            this->start_image(batch);
            std::fill_n(state, p.inner * p.states, T(0));
            int64_t projected = 0;
            for (int64_t slab = 0; slab < slabs.count(); ++slab) {
                const int64_t first = slab * slabs.slab_rows, last = std::min(first + slabs.slab_rows, s.rows);
                const int64_t ahead = std::min(last + slabs.reach, s.rows);
                s.first_row = first;
                this->project(projected, ahead);
                projected = ahead;
                this->convolve(first, last);
                scan(batch, slab, last - first);
                finish(first, last);
            }
        }
    }

    void scan(int64_t batch, int64_t slab, int64_t rows) {
        ScanProblem scan = this->scan_of(batch, slab, rows);
        scan.y = s.y;
        scan.first_state = scan.last_state = state;
        run_scan(scan, this->set, threads, false);
    }

    void finish(int64_t first_row, int64_t last_row) {
        if (!this->pooled()) s.out = pooling.pooled + first_row * s.width * s.out_channels;
        this->in_groups(0, (last_row - first_row) * s.width, TOKEN_GROUP,
                        [&](int64_t first, int64_t last, int64_t, T* workspace) {
                            k.finish_tokens(s, first, last, workspace);
                        });
        if (this->pooled()) pool(first_row, last_row);
    }

    // One task for each pooled row that has rows of the slab in its window.
    void pool(int64_t first_row, int64_t last_row) {
        const int64_t height = p.height / p.pool_height, depth = p.depth / p.pool_depth;
        const int64_t first = first_row / p.height / p.pool_depth;
        const int64_t last = std::min((last_row - 1) / p.height / p.pool_depth + 1, depth);
        parallel_for(std::max<int64_t>(last - first, 0) * height, threads, [&](int64_t i, int64_t) {
            k.pool_rows(pooling, s.out, first_row, last_row, first + i / height, i % height);
        });
    }
};

}  // namespace

int64_t rvm_checkpoints(const RvmProblem& problem) {
    const Slabs slabs(problem, true);
    return slabs.count() * slabs.chunks;
}

void run_rvm_forward(const RvmProblem& problem, const InstructionSet& set, int64_t threads) {
    problem.is_double ? RvmForward<double>(problem, set.rvm_of_double, set, threads).run()
                      : RvmForward<float>(problem, set.rvm_of_float, set, threads).run();
}
