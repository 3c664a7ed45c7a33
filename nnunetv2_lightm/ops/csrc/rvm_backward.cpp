// The backward pass of an RVM layer: slab by slab from the last to the first. Each slab's forward steps run again, its
// scan from the checkpoints.
#include "rvm_layer.hpp"

namespace {

// Tokens over which a weight's gradient is summed at once, so that its factors stay in the cache.
constexpr int64_t TOKENS_OF_PRODUCT = 256;
// Rows of a weight's gradient that are one task.
constexpr int64_t ROWS_OF_TASK = 24;

// Sums over tokens: gradients of parameters, and of two in the kernels' layout.
template <class T>
struct ParameterSums {
    T* parameter[PARAMETERS];
    T *dt_weight, *conv_weight;  // (rank, inner), (taps, inner)
    T* vectors;                  // VectorSums of each group of tokens, so that they do not depend on who does a group
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
          sums(std::min<int64_t>(problem.batch * slabs.count(), Layer::MOST_BENCHES)) {
        const int64_t C = p.channels, E = p.inner, R = p.rank, N = p.states, O = p.out_channels;
        using S = RvmSlab<T>;
        for (T* S::* buffer :
             {&S::before_silu, &S::grad_gate, &S::gated, &S::grad_conv, &S::grad_delta, &S::grad_in})
            this->reserve_on_benches(buffer, tokens() * E);
        for (T* S::* buffer : {&S::norm_in, &S::grad_m, &S::norm_out, &S::late_norm_in})
            this->reserve_on_benches(buffer, tokens() * C);
        for (T* S::* buffer : {&S::grad_B, &S::grad_C}) this->reserve_on_benches(buffer, tokens() * N);
        this->reserve_on_benches(&S::grad_matrices, tokens() * s.matrix_stride);
        if (this->pooled()) this->reserve_on_benches(&S::out, tokens() * O);
        arena.reserve(s.grad_ring, s.ring_rows * p.width * E);
        arena.reserve(conv_weight_back, this->taps() * E);
        arena.reserve(s.in_proj_back, C, E, k.lanes);
        arena.reserve(s.gate_proj_back, C, E, k.lanes);
        arena.reserve(s.x_proj_back, E, 2 * N + R, k.lanes);
        arena.reserve(s.dt_back, R, E, k.lanes);
        arena.reserve(s.out_proj_back, E, C, k.lanes);
        arena.reserve(s.projection_back, C, O, k.lanes);
        groups = divided_up(tokens(), TOKEN_GROUP) + divided_up(slabs.slab_rows, this->row_group());
        for (ParameterSums<T>& sum : sums)
            for_sums(sum, [&](T*& array, int64_t count) { arena.reserve(array, count); });
        this->prepare();

        lay_out(s.in_proj_back, k.lanes, s.parameter[IN_PROJ], C, 1);
        lay_out(s.gate_proj_back, k.lanes, s.parameter[GATE_PROJ], C, 1);
        lay_out_x_proj_back();
        lay_out(s.dt_back, k.lanes, s.parameter[DT_WEIGHT], R, 1);
        lay_out(s.out_proj_back, k.lanes, s.parameter[OUT_PROJ], E, 1);
        lay_out(s.projection_back, k.lanes, s.parameter[PROJECTION_WEIGHT], C, 1);
        const int64_t taps = this->taps();
        for (int64_t tap = 0; tap < taps; ++tap)
            std::copy_n(s.conv_weight + (taps - 1 - tap) * E, E, conv_weight_back + tap * E);
        s.conv_weight_back = conv_weight_back;
        for (ParameterSums<T>& sum : sums)
            for_sums(sum, [](T* array, int64_t count) { std::fill_n(array, count, T(0)); });
    }

    void run() {
        use_huge_pages(p.grad_x, p.batch * s.rows * s.width * s.channels * sizeof(T));
        this->for_slabs([&](Bench<T>& bench, int64_t unit) { run_slab(bench, unit); });
        give_sums();
    }

private:
    void run_slab(Bench<T>& bench, int64_t unit) {
        this->start(bench, unit);
        const int64_t image = unit / slabs.count(), place = unit % slabs.count(), slab = slabs.count() - 1 - place;
        bench.s.grad_x = static_cast<T*>(p.grad_x) + image * s.rows * s.width * s.channels;
        const int64_t first = slab * slabs.slab_rows, last = std::min(first + slabs.slab_rows, s.rows);
        const int64_t projected = place == 0 ? s.rows : std::max<int64_t>(last - slabs.reach, 0);
        bench.s.first_row = first;
        this->project(bench, unit, std::max<int64_t>(first - slabs.reach, 0), projected);
        this->convolve(bench, first, last);
        differentiate(bench, unit, image, slab, last);
        add_weight_gradients(bench, unit, last);
        // Rows whose neighbours in the ring of gradients are all there.
        const int64_t complete = slab == 0 ? 0 : std::min(first + slabs.reach, s.rows);
        for (int64_t late = place == 0 ? s.rows : std::min(last + slabs.reach, s.rows); late > complete;) {
            const int64_t before = std::max(late - slabs.slab_rows, complete);
            project_backward(bench, unit, before, late);
            late = before;
        }
        this->ends.pass(unit);
    }

    // Slabs that are worked on at the same time have different ones.
    const ParameterSums<T>& sums_of(int64_t unit) const { return sums[unit % sums.size()]; }
    int64_t sums_count() const { return VectorSums<T>::count(p.channels, p.inner, p.out_channels); }
    VectorSums<T> vectors_of(int64_t unit, int64_t group) const {
        return VectorSums<T>(sums_of(unit).vectors + group * sums_count(), p.channels, p.inner);
    }

    // Calls f(array, number of its elements) for all arrays of `sum`.
    template <class F>
    void for_sums(ParameterSums<T>& sum, F f) {
        const int64_t C = p.channels, E = p.inner, R = p.rank, N = p.states;
        for (int parameter : {IN_PROJ, GATE_PROJ, OUT_PROJ}) f(sum.parameter[parameter], E * C);
        f(sum.parameter[X_PROJ], (R + 2 * N) * E);
        f(sum.parameter[PROJECTION_WEIGHT], p.out_channels * C);
        f(sum.parameter[A_MATRIX], E * N);
        for (int parameter : {SKIP, DT_BIAS}) f(sum.parameter[parameter], E);
        f(sum.dt_weight, R * E);
        f(sum.conv_weight, this->taps() * E);
        f(sum.vectors, groups * sums_count());
    }

    void lay_out_x_proj_back() {
        std::vector<T> ordered((p.rank + 2 * p.states) * p.inner);
        for (int64_t column = 0; column < p.rank + 2 * p.states; ++column)
            std::copy_n(s.parameter[X_PROJ] + this->matrix_row(column) * p.inner, p.inner,
                        ordered.data() + column * p.inner);
        lay_out(s.x_proj_back, k.lanes, ordered.data(), p.inner, 1);
    }

    // From the gradient of the slab's output to that of its convolution's output.
    void differentiate(Bench<T>& bench, int64_t unit, int64_t image, int64_t slab, int64_t last_row) {
        RvmSlab<T>& s = bench.s;
        const int64_t first_row = s.first_row;
        ScanProblem scan = this->scan_of(bench, image, slab, last_row - first_row);
        scan.y = s.y;
        scan.resume = 1;
        run_scan(scan, this->set, this->sharing(), false);

        s.grad_out = bench.pooling.pooled + first_row * s.width * s.out_channels;
        if (this->pooled()) {
            s.grad_out = s.out;
            parallel_for(last_row - first_row, this->sharing(), [&](int64_t i, int64_t) {
                k.unpool_row(bench.pooling, first_row + i, s.out + i * s.width * s.out_channels);
            });
        }
        this->in_groups(bench, 0, (last_row - first_row) * s.width, TOKEN_GROUP,
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
        this->relay(scan, unit, true);

        this->rows_in_groups(bench, first_row, last_row, [&](int64_t first, int64_t last, int64_t group, T* workspace) {
            VectorSums<T> vectors = vectors_of(unit, group);
            k.convolve_rows_backward(s, first, last, vectors, workspace);
        });
        this->gradients.pass(unit);
    }

    void project_backward(Bench<T>& bench, int64_t unit, int64_t first_row, int64_t last_row) {
        RvmSlab<T>& s = bench.s;
        s.late_row = first_row;
        this->rows_in_groups(bench, first_row, last_row, [&](int64_t first, int64_t last, int64_t group, T* workspace) {
            VectorSums<T> vectors = vectors_of(unit, group);
            k.project_rows_backward(s, first, last, vectors, workspace);
        });
        T* gradient = sums_of(unit).parameter[IN_PROJ];
        multiply_all({{s.grad_in, p.inner, p.inner, s.late_norm_in, p.channels, gradient}},
                     (last_row - first_row) * s.width, 0, [](int64_t) {});
    }

    void add_weight_gradients(Bench<T>& bench, int64_t unit, int64_t last_row) {
        const int64_t C = p.channels, E = p.inner, R = p.rank, N = p.states, O = p.out_channels;
        const RvmSlab<T>& s = bench.s;
        const ParameterSums<T>& sum = sums_of(unit);
        const T* low_rank = s.matrices + 2 * N;
        const std::vector<WeightGradient> products = {
            {s.grad_gate, E, E, s.norm_in, C, sum.parameter[GATE_PROJ]},
            {s.grad_m, C, C, s.gated, E, sum.parameter[OUT_PROJ]},
            {s.grad_out, O, O, s.norm_out, C, sum.parameter[PROJECTION_WEIGHT]},
            {s.grad_matrices, 2 * N, s.matrix_stride, s.conv, E, sum.parameter[X_PROJ] + R * E},
            {s.grad_matrices + 2 * N, R, s.matrix_stride, s.conv, E, sum.parameter[X_PROJ]},
            {low_rank, R, s.matrix_stride, s.grad_delta, E, sum.dt_weight},
        };
        multiply_all(products, (last_row - s.first_row) * s.width, E / k.lanes, [&](int64_t block) {
            k.correlate_rows(s, s.first_row, last_row, block * k.lanes, sum.conv_weight);
        });
    }

    // Shares the products among the threads, and `others` further tasks.
    template <class F>
    void multiply_all(const std::vector<WeightGradient>& products, int64_t token_count, int64_t others, F other) {
        std::vector<std::pair<const WeightGradient*, int64_t>> tasks;
        for (const WeightGradient& product : products)
            for (int64_t row = 0; row < product.rows; row += ROWS_OF_TASK) tasks.push_back({&product, row});
        parallel_for(others + tasks.size(), this->sharing(), [&](int64_t i, int64_t) {
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

    // All sums into the first ones, and from there to where Python wants them.
    void give_sums() {
        const int64_t C = p.channels, E = p.inner, R = p.rank;
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

        const auto give = [&](int parameter, const T* from, int64_t count) {
            std::copy_n(from, count, static_cast<T*>(p.gradient[parameter]));
        };
        for (int parameter : {IN_PROJ, GATE_PROJ, OUT_PROJ}) give(parameter, sum.parameter[parameter], E * C);
        give(X_PROJ, sum.parameter[X_PROJ], (R + 2 * p.states) * E);
        give(PROJECTION_WEIGHT, sum.parameter[PROJECTION_WEIGHT], p.out_channels * C);
        give(A_MATRIX, sum.parameter[A_MATRIX], E * p.states);
        for (int parameter : {SKIP, DT_BIAS}) give(parameter, sum.parameter[parameter], E);
        const VectorSums<T> vectors(sum.vectors, C, E);
        give(NORM_IN_WEIGHT, vectors.norm_in_weight, C);
        give(NORM_IN_BIAS, vectors.norm_in_bias, C);
        give(CONV_BIAS, vectors.conv_bias, E);
        give(NORM_WEIGHT, vectors.norm_weight, E);
        give(NORM_BIAS, vectors.norm_bias, E);
        give(SCALE, vectors.scale, C);
        give(NORM_OUT_WEIGHT, vectors.norm_out_weight, C);
        give(NORM_OUT_BIAS, vectors.norm_out_bias, C);
        give(PROJECTION_BIAS, vectors.projection_bias, p.out_channels);
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
    problem.is_double ? RvmBackward<double>(problem, set.rvm_of_double, set, threads).run()
                      : RvmBackward<float>(problem, set.rvm_of_float, set, threads).run();
}
