// The backward pass of an RVM layer, slab by slab from the last to the first. Each slab's forward steps run again; its
// scan restarts from the checkpoints.
#include "rvm_layer.hpp"

namespace {

// Tokens over which a weight's gradient is summed at a time; its factors stay in the cache.
constexpr int64_t TOKENS_OF_PRODUCT = 256;
// Rows of a weight's gradient in one task.
constexpr int64_t ROWS_OF_TASK = 24;

// Sums over tokens: gradients of the parameters, two of them in the kernels' layout.
template <class T>
struct ParameterSums {
    T* parameter[PARAMETERS];
    T *dt_weight, *conv_weight;  // (rank, inner), (taps, inner)
    T* vectors;  // VectorSums of each group of tokens, so that results do not depend on which thread runs a group
};

template <class T>
class RvmBackward : RvmLayer<T> {
    using Layer = RvmLayer<T>;
    using Layer::arena, Layer::k, Layer::p, Layer::s, Layer::slabs, Layer::state, Layer::tokens;

    // gradient[rows of `a`, columns of `b`] += sum over tokens of a * b.
    struct WeightGradient {
        const T* a;
        int64_t rows, a_stride;
        const T* b;
        int64_t columns;
        T* gradient;
    };

public:
    RvmBackward(const RvmProblem& problem, const RvmKernels<T>& kernels, const InstructionSet& set, int64_t threads)
        : Layer(problem, kernels, set, threads),
          sums(std::min<int64_t>(problem.batch * slabs.count(), Layer::MAX_CONTEXTS)) {
        const int64_t channels = p.channels, E = p.inner, R = p.rank, N = p.states, O = p.out_channels;
        using S = RvmSlab<T>;
        for (T* S::* buffer : {&S::before_silu, &S::grad_gate, &S::gated, &S::grad_conv, &S::grad_delta, &S::grad_in})
            this->reserve_per_context(buffer, tokens() * E);
        for (T* S::* buffer : {&S::norm_in, &S::grad_m, &S::norm_out, &S::deferred_norm_in})
            this->reserve_per_context(buffer, tokens() * channels);
        for (T* S::* buffer : {&S::grad_B, &S::grad_C}) this->reserve_per_context(buffer, tokens() * N);
        this->reserve_per_context(&S::grad_matrices, tokens() * s.matrix_stride);
        if (this->pooled()) this->reserve_per_context(&S::out, tokens() * O);
        arena.reserve(s.grad_ring, s.ring_rows * p.width * E);
        arena.reserve(conv_weight_back, this->taps() * E);
        arena.reserve(s.in_proj_back, channels, E, k.lanes);
        arena.reserve(s.gate_proj_back, channels, E, k.lanes);
        arena.reserve(s.x_proj_back, E, 2 * N + R, k.lanes);
        arena.reserve(s.dt_back, R, E, k.lanes);
        arena.reserve(s.out_proj_back, E, channels, k.lanes);
        arena.reserve(s.projection_back, channels, O, k.lanes);
        groups = ceil_div(tokens(), TOKEN_GROUP) + ceil_div(slabs.slab_rows, this->row_group());
        for (ParameterSums<T>& sum : sums)
            for_sums(sum, [&](T*& array, int64_t count) { arena.reserve(array, count); });
        this->prepare();

        pack(s.in_proj_back, k.lanes, s.parameter[IN_PROJ], channels, 1);
        pack(s.gate_proj_back, k.lanes, s.parameter[GATE_PROJ], channels, 1);
        pack_x_proj_back();
        pack(s.dt_back, k.lanes, s.parameter[DT_WEIGHT], R, 1);
        pack(s.out_proj_back, k.lanes, s.parameter[OUT_PROJ], E, 1);
        pack(s.projection_back, k.lanes, s.parameter[PROJECTION_WEIGHT], channels, 1);
        const int64_t taps = this->taps();
        for (int64_t tap = 0; tap < taps; ++tap)
            std::copy_n(s.conv_weight + (taps - 1 - tap) * E, E, conv_weight_back + tap * E);
        s.conv_weight_back = conv_weight_back;
        for (ParameterSums<T>& sum : sums)
            for_sums(sum, [](T* array, int64_t count) { std::fill_n(array, count, T(0)); });
    }

    void run() {
        use_huge_pages(p.grad_x, p.batch * s.rows * s.width * s.channels * sizeof(T));
        this->for_slabs([&](SlabContext<T>& context, int64_t unit) { run_slab(context, unit); });
        write_gradients();
    }

private:
    void run_slab(SlabContext<T>& context, int64_t unit) {
        this->start(context, unit);
        const int64_t image = unit / slabs.count(), order = unit % slabs.count(), slab = slabs.count() - 1 - order;
        context.s.grad_x = static_cast<T*>(p.grad_x) + image * s.rows * s.width * s.channels;
        const int64_t first = slab * slabs.slab_rows, last = std::min(first + slabs.slab_rows, s.rows);
        const int64_t projected = order == 0 ? s.rows : std::max<int64_t>(last - slabs.halo_rows, 0);
        context.s.first_row = first;
        this->project(context, unit, std::max<int64_t>(first - slabs.halo_rows, 0), projected);
        this->convolve(context, first, last);
        backward_to_convolution(context, unit, image, slab, last);
        add_weight_gradients(context, unit, last);
        // Input projections go backward for the rows whose halo of gradients is now complete.
        const int64_t complete = slab == 0 ? 0 : std::min(first + slabs.halo_rows, s.rows);
        for (int64_t deferred = order == 0 ? s.rows : std::min(last + slabs.halo_rows, s.rows); deferred > complete;) {
            const int64_t before = std::max(deferred - slabs.slab_rows, complete);
            project_backward(context, unit, before, deferred);
            deferred = before;
        }
        this->ends.complete(unit);
    }

    // Slabs in progress at the same time use different sums.
    const ParameterSums<T>& sums_of(int64_t unit) const { return sums[unit % sums.size()]; }
    int64_t sums_count() const { return VectorSums<T>::count(p.channels, p.inner, p.out_channels); }
    VectorSums<T> vectors_of(int64_t unit, int64_t group) const {
        return VectorSums<T>(sums_of(unit).vectors + group * sums_count(), p.channels, p.inner);
    }

    // Calls f(array, number of its elements) for all arrays of `sum`.
    template <class F>
    void for_sums(ParameterSums<T>& sum, F f) {
        const int64_t channels = p.channels, E = p.inner, R = p.rank, N = p.states;
        for (int parameter : {IN_PROJ, GATE_PROJ, OUT_PROJ}) f(sum.parameter[parameter], E * channels);
        f(sum.parameter[X_PROJ], (R + 2 * N) * E);
        f(sum.parameter[PROJECTION_WEIGHT], p.out_channels * channels);
        f(sum.parameter[A_MATRIX], E * N);
        for (int parameter : {SKIP, DT_BIAS}) f(sum.parameter[parameter], E);
        f(sum.dt_weight, R * E);
        f(sum.conv_weight, this->taps() * E);
        f(sum.vectors, groups * sums_count());
    }

    void pack_x_proj_back() {
        std::vector<T> ordered((p.rank + 2 * p.states) * p.inner);
        for (int64_t column = 0; column < p.rank + 2 * p.states; ++column)
            std::copy_n(s.parameter[X_PROJ] + this->matrix_row(column) * p.inner, p.inner,
                        ordered.data() + column * p.inner);
        pack(s.x_proj_back, k.lanes, ordered.data(), p.inner, 1);
    }

    // From the gradient of the slab's output to the gradient of its convolution's output.
    void backward_to_convolution(SlabContext<T>& context, int64_t unit, int64_t image, int64_t slab, int64_t last_row) {
        RvmSlab<T>& s = context.s;
        const int64_t first_row = s.first_row;
        ScanProblem scan = this->scan_of(context, image, slab, last_row - first_row);
        scan.y = s.y;
        scan.resume = 1;
        run_scan(scan, this->set, this->step_threads(), false);

        s.grad_out = context.pooling.pooled + first_row * s.width * s.out_channels;
        if (this->pooled()) {
            s.grad_out = s.out;
            parallel_for(last_row - first_row, this->step_threads(), [&](int64_t i, int64_t) {
                k.unpool_row(context.pooling, first_row + i, s.out + i * s.width * s.out_channels);
            });
        }
        this->in_groups(context, 0, (last_row - first_row) * s.width, TOKEN_GROUP,
                        [&](int64_t first, int64_t last, int64_t group, T* workspace) {
                            VectorSums<T> vectors = vectors_of(unit, group);
                            k.finish_tokens_backward(s, first, last, vectors, workspace);
                        });

        const ParameterSums<T>& sum = sums_of(unit);
        scan.resume = 0;
        scan.accumulate = 1;
        scan.y = nullptr;
        scan.grad_y = {s.y, 0, p.inner};
        scan.grad_last = slab == slabs.count() - 1 ? nullptr : state;
        scan.grad_first_state = state;
        scan.grad_u = s.grad_conv, scan.grad_delta = s.grad_delta, scan.grad_B = s.grad_B, scan.grad_C = s.grad_C;
        scan.grad_A = sum.parameter[A_MATRIX], scan.grad_D = sum.parameter[SKIP];
        scan.grad_delta_bias = sum.parameter[DT_BIAS];
        this->run_chained_scan(scan, unit, true);

        this->rows_in_groups(context, first_row, last_row,
                             [&](int64_t first, int64_t last, int64_t group, T* workspace) {
                                 VectorSums<T> vectors = vectors_of(unit, group);
                                 k.convolve_rows_backward(s, first, last, vectors, workspace);
                             });
        this->gradients.complete(unit);
    }

    void project_backward(SlabContext<T>& context, int64_t unit, int64_t first_row, int64_t last_row) {
        RvmSlab<T>& s = context.s;
        s.deferred_row = first_row;
        this->rows_in_groups(context, first_row, last_row,
                             [&](int64_t first, int64_t last, int64_t group, T* workspace) {
                                 VectorSums<T> vectors = vectors_of(unit, group);
                                 k.project_rows_backward(s, first, last, vectors, workspace);
                             });
        T* gradient = sums_of(unit).parameter[IN_PROJ];
        multiply_all({{s.grad_in, p.inner, p.inner, s.deferred_norm_in, p.channels, gradient}},
                     (last_row - first_row) * s.width, 0, [](int64_t) {});
    }

    void add_weight_gradients(SlabContext<T>& context, int64_t unit, int64_t last_row) {
        const int64_t channels = p.channels, E = p.inner, R = p.rank, N = p.states, O = p.out_channels;
        const RvmSlab<T>& s = context.s;
        const ParameterSums<T>& sum = sums_of(unit);
        const T* low_rank = s.matrices + 2 * N;
        const std::vector<WeightGradient> products = {
            {s.grad_gate, E, E, s.norm_in, channels, sum.parameter[GATE_PROJ]},
            {s.grad_m, channels, channels, s.gated, E, sum.parameter[OUT_PROJ]},
            {s.grad_out, O, O, s.norm_out, channels, sum.parameter[PROJECTION_WEIGHT]},
            {s.grad_matrices, 2 * N, s.matrix_stride, s.conv, E, sum.parameter[X_PROJ] + R * E},
            {s.grad_matrices + 2 * N, R, s.matrix_stride, s.conv, E, sum.parameter[X_PROJ]},
            {low_rank, R, s.matrix_stride, s.grad_delta, E, sum.dt_weight},
        };
        multiply_all(products, (last_row - s.first_row) * s.width, E / k.lanes, [&](int64_t block) {
            k.correlate_rows(s, s.first_row, last_row, block * k.lanes, sum.conv_weight);
        });
    }

    // Distributes the products, and `others` further tasks, over the threads.
    template <class F>
    void multiply_all(const std::vector<WeightGradient>& products, int64_t token_count, int64_t others, F other) {
        std::vector<std::pair<const WeightGradient*, int64_t>> tasks;
        for (const WeightGradient& product : products)
            for (int64_t row = 0; row < product.rows; row += ROWS_OF_TASK) tasks.push_back({&product, row});
        parallel_for(others + tasks.size(), this->step_threads(), [&](int64_t i, int64_t) {
            if (i < others) return other(i);
            const auto [product, row] = tasks[i - others];
            const int64_t rows = std::min(ROWS_OF_TASK, product->rows - row), panel = 2 * k.lanes;
            for (int64_t t = 0; t < token_count; t += TOKENS_OF_PRODUCT)
                k.multiply({rows, product->columns, std::min(TOKENS_OF_PRODUCT, token_count - t),
                            product->a + t * product->a_stride + row, 1, product->a_stride,
                            product->b + t * product->columns, panel, product->columns,
                            product->gradient + row * product->columns, product->columns, true});
        });
    }

    // Adds all sums to the first ones, and copies those to Python's gradients.
    void write_gradients() {
        const int64_t channels = p.channels, E = p.inner, R = p.rank;
        std::vector<T*> totals;
        for_sums(sums[0], [&](T* array, int64_t) { totals.push_back(array); });
        for (size_t i = 1; i < sums.size(); ++i) {
            auto total = totals.begin();
            for_sums(sums[i], [&](T* array, int64_t count) {
                for (int64_t j = 0; j < count; ++j) (*total)[j] += array[j];
                ++total;
            });
        }
        const ParameterSums<T>& sum = sums[0];
        for (int64_t group = 1; group < groups; ++group)
            for (int64_t i = 0; i < sums_count(); ++i) sum.vectors[i] += sum.vectors[group * sums_count() + i];

        const auto write = [&](int parameter, const T* from, int64_t count) {
            std::copy_n(from, count, static_cast<T*>(p.gradient[parameter]));
        };
        for (int parameter : {IN_PROJ, GATE_PROJ, OUT_PROJ}) write(parameter, sum.parameter[parameter], E * channels);
        write(X_PROJ, sum.parameter[X_PROJ], (R + 2 * p.states) * E);
        write(PROJECTION_WEIGHT, sum.parameter[PROJECTION_WEIGHT], p.out_channels * channels);
        write(A_MATRIX, sum.parameter[A_MATRIX], E * p.states);
        for (int parameter : {SKIP, DT_BIAS}) write(parameter, sum.parameter[parameter], E);
        const VectorSums<T> vectors(sum.vectors, channels, E);
        write(NORM_IN_WEIGHT, vectors.norm_in_weight, channels);
        write(NORM_IN_BIAS, vectors.norm_in_bias, channels);
        write(CONV_BIAS, vectors.conv_bias, E);
        write(NORM_WEIGHT, vectors.norm_weight, E);
        write(NORM_BIAS, vectors.norm_bias, E);
        write(SCALE, vectors.scale, channels);
        write(NORM_OUT_WEIGHT, vectors.norm_out_weight, channels);
        write(NORM_OUT_BIAS, vectors.norm_out_bias, channels);
        write(PROJECTION_BIAS, vectors.projection_bias, p.out_channels);
        T *conv_weight = static_cast<T*>(p.gradient[CONV_WEIGHT]), *dt_weight = static_cast<T*>(p.gradient[DT_WEIGHT]);
        for (int64_t e = 0; e < E; ++e) {
            for (int64_t tap = 0; tap < this->taps(); ++tap)
                conv_weight[e * this->taps() + tap] = sum.conv_weight[tap * E + e];
            for (int64_t r = 0; r < R; ++r) dt_weight[e * R + r] = sum.dt_weight[r * E + e];
        }
    }

    std::vector<ParameterSums<T>> sums;
    T* conv_weight_back;
    int64_t groups;
};

}  // namespace

void run_rvm_backward(const RvmProblem& problem, const InstructionSet& set, int64_t threads) {
    problem.is_double ? RvmBackward<double>(problem, set.rvm_double, set, threads).run()
                      : RvmBackward<float>(problem, set.rvm_float, set, threads).run();
}
