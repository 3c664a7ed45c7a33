// The forward pass of an RVM layer.
#include "rvm_layer.hpp"

namespace {

template <class T>
class RvmForward : RvmLayer<T> {
    using Layer = RvmLayer<T>;
    using Layer::k, Layer::p, Layer::s, Layer::slabs, Layer::state;

public:
    RvmForward(const RvmProblem& problem, const RvmKernels<T>& kernels, const InstructionSet& set, int64_t threads)
        : Layer(problem, kernels, set, threads) {
        if (this->pooled()) this->reserve_per_context(&RvmSlab<T>::out, this->tokens() * p.out_channels);
        this->prepare();
    }

    void run() {
        const int64_t pooled = (p.depth / p.pool_depth) * (p.height / p.pool_height) * (p.width / p.pool_width);
        use_huge_pages(p.out, p.batch * pooled * p.out_channels * sizeof(T));
        if (p.checkpoints)
            use_huge_pages(p.checkpoints, p.batch * slabs.count() * slabs.chunks * p.states * p.inner * sizeof(T));
        this->for_slabs([&](SlabContext<T>& context, int64_t unit) { run_slab(context, unit); });
    }

private:
    void run_slab(SlabContext<T>& context, int64_t unit) {
        this->start(context, unit);
        const int64_t image = unit / slabs.count(), slab = unit % slabs.count();
        const int64_t first = slab * slabs.slab_rows, last = std::min(first + slabs.slab_rows, s.rows);
        const int64_t projected = slab == 0 ? 0 : std::min(first + slabs.halo_rows, s.rows);
        context.s.first_row = first;
        this->project(context, unit, projected, std::min(last + slabs.halo_rows, s.rows));
        this->convolve(context, first, last);
        ScanProblem scan = this->scan_of(context, image, slab, last - first);
        scan.y = context.s.y;
        scan.first_state = slab == 0 ? nullptr : state;
        scan.last_state = state;
        this->run_chained_scan(scan, unit, false);
        finish(context, unit, first, last);
    }

    void finish(SlabContext<T>& context, int64_t unit, int64_t first_row, int64_t last_row) {
        if (!this->pooled()) context.s.out = context.pooling.pooled + first_row * s.width * s.out_channels;
        this->in_groups(context, 0, (last_row - first_row) * s.width, TOKEN_GROUP,
                        [&](int64_t first, int64_t last, int64_t, T* workspace) {
                            k.finish_tokens(context.s, first, last, workspace);
                        });
        this->ends.wait_for(unit);
        if (this->pooled()) pool(context, first_row, last_row);
        this->ends.complete(unit);
    }

    // One task for each pooled row whose window contains rows of the slab.
    void pool(const SlabContext<T>& context, int64_t first_row, int64_t last_row) {
        const int64_t height = p.height / p.pool_height, depth = p.depth / p.pool_depth;
        const int64_t first = first_row / p.height / p.pool_depth;
        const int64_t last = std::min((last_row - 1) / p.height / p.pool_depth + 1, depth);
        parallel_for(std::max<int64_t>(last - first, 0) * height, this->step_threads(), [&](int64_t i, int64_t) {
            k.pool_rows(context.pooling, context.s.out, first_row, last_row, first + i / height, i % height);
        });
    }
};

}  // namespace

int64_t rvm_checkpoints(const RvmProblem& problem) {
    const Slabs slabs(problem, true);
    return slabs.count() * slabs.chunks;
}

void run_rvm_forward(const RvmProblem& problem, const InstructionSet& set, int64_t threads) {
    problem.is_double ? RvmForward<double>(problem, set.rvm_double, set, threads).run()
                      : RvmForward<float>(problem, set.rvm_float, set, threads).run();
}
