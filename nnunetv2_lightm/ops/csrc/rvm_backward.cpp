// The backward pass of an RVM layer: slab by slab from the last to the first. Each slab's forward steps run again, its
// scan from the checkpoints.
#include "rvm_layer.hpp"

namespace {

// Tokens over which a weight's gradient is summed at once, so that its factors stay in the cache.
constexpr int64_t TOKENS_OF_PRODUCT = 256;
// Rows of a weight's gradient that are one task.
constexpr int64_t ROWS_OF_TASK = 24;

template <class T>
class RvmBackward : RvmLayer<T> {
    using Layer = RvmLayer<T>;
    using Layer::arena, Layer::k, Layer::p, Layer::pooling, Layer::s, Layer::slabs, Layer::state, Layer::threads,
        Layer::tokens;

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
        : Layer(problem, kernels, set, threads) {
        const int64_t C = p.channels, E = p.inner, R = p.rank, N = p.states, O = p.out_channels;
        for (T** buffer : {&s.before_silu, &s.grad_gate, &s.gated, &s.grad_conv, &s.grad_delta})
            arena.reserve(*buffer, tokens() * E);
        for (T** buffer : {&s.norm_in, &s.grad_m, &s.norm_out}) arena.reserve(*buffer, tokens() * C);
        for (T** buffer : {&s.grad_B, &s.grad_C}) arena.reserve(*buffer, tokens() * N);
        arena.reserve(s.grad_matrices, tokens() * s.matrix_stride);
        arena.reserve(s.grad_in, tokens() * E);
        arena.reserve(s.late_norm_in, tokens() * C);
        arena.reserve(s.grad_ring, s.ring_rows * p.width * E);
        arena.reserve(conv_weight_back, this->taps() * E);
        arena.reserve(grad_conv_weight, this->taps() * E);
        arena.reserve(grad_dt_weight, R * E);
        if (this->pooled()) arena.reserve(unpooled, tokens() * O);
        arena.reserve(s.in_proj_back, C, E, k.lanes);
        arena.reserve(s.gate_proj_back, C, E, k.lanes);
        arena.reserve(s.x_proj_back, E, 2 * N + R, k.lanes);
        arena.reserve(s.dt_back, R, E, k.lanes);
        arena.reserve(s.out_proj_back, E, C, k.lanes);
        arena.reserve(s.projection_back, C, O, k.lanes);
        groups = divided_up(tokens(), TOKEN_GROUP) + divided_up(slabs.slab_rows, this->row_group());
        arena.reserve(vector_sums, groups * sums_count());
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
        std::fill_n(grad_conv_weight, taps * E, T(0));
        std::fill_n(grad_dt_weight, R * E, T(0));
        std::fill_n(vector_sums, groups * sums_count(), T(0));
        for (int parameter : {IN_PROJ, GATE_PROJ, OUT_PROJ}) std::fill_n(gradient(parameter), E * C, T(0));
        std::fill_n(gradient(X_PROJ), (R + 2 * N) * E, T(0));
        std::fill_n(gradient(PROJECTION_WEIGHT), O * C, T(0));
        std::fill_n(gradient(A_MATRIX), E * N, T(0));
        for (int parameter : {SKIP, DT_BIAS}) std::fill_n(gradient(parameter), E, T(0));
    }

    void run() {
        use_huge_pages(p.grad_x, p.batch * s.rows * s.width * s.channels * sizeof(T));
        with_threads(threads, [&] { run_slabs(); });
        give_sums();
    }

private:
    void run_slabs() {
        for (int64_t batch = 0; batch < p.batch; ++batch) {
            this->start_image(batch);
            s.grad_x = static_cast<T*>(p.grad_x) + batch * s.rows * s.width * s.channels;
            std::fill_n(state, p.inner * p.states, T(0));
            int64_t projected = s.rows, late = s.rows;
            for (int64_t slab = slabs.count() - 1; slab >= 0; --slab) {
                const int64_t first = slab * slabs.slab_rows, last = std::min(first + slabs.slab_rows, s.rows);
                const int64_t behind = std::max<int64_t>(first - slabs.reach, 0);
                s.first_row = first;
                this->project(behind, projected);
                projected = behind;
                this->convolve(first, last);
                differentiate(batch, slab, first, last);
                add_weight_gradients(first, last);
                const int64_t complete = first == 0 ? 0 : std::min(first + slabs.reach, s.rows);
                while (late > complete) {
                    const int64_t before = std::max(late - slabs.slab_rows, complete);
                    project_backward(before, late);
                    late = before;
                }
            }
        }
    }

    T* gradient(int64_t parameter) const { return static_cast<T*>(p.gradient[parameter]); }
    int64_t sums_count() const { return VectorSums<T>::count(p.channels, p.inner, p.out_channels); }
    // Sums of a group of tokens: always of the same ones, whatever the number of threads.
    VectorSums<T> sums_of(int64_t group) const {
        return VectorSums<T>(vector_sums + group * sums_count(), p.channels, p.inner);
    }

    void lay_out_x_proj_back() {
        std::vector<T> ordered((p.rank + 2 * p.states) * p.inner);
        for (int64_t column = 0; column < p.rank + 2 * p.states; ++column)
            std::copy_n(s.parameter[X_PROJ] + this->matrix_row(column) * p.inner, p.inner,
                        ordered.data() + column * p.inner);
        lay_out(s.x_proj_back, k.lanes, ordered.data(), p.inner, 1);
    }

    // From the gradient of the slab's output to that of its convolution's output.
    void differentiate(int64_t batch, int64_t slab, int64_t first_row, int64_t last_row) {
        ScanProblem scan = this->scan_of(batch, slab, last_row - first_row);
        scan.y = s.y;
        scan.resume = 1;
        run_scan(scan, this->set, threads, false);

        s.grad_out = pooling.pooled + first_row * s.width * s.out_channels;
        if (this->pooled()) {
            s.grad_out = unpooled;
            parallel_for(last_row - first_row, threads, [&](int64_t i, int64_t) {
                k.unpool_row(pooling, first_row + i, unpooled + i * s.width * s.out_channels);
            });
        }
        this->in_groups(0, (last_row - first_row) * s.width, TOKEN_GROUP,
                        [&](int64_t first, int64_t last, int64_t group, T* workspace) {
                            VectorSums<T> sums = sums_of(group);
                            k.finish_tokens_backward(s, first, last, sums, workspace);
                        });

        scan.resume = 0;
        scan.accumulate = 1;
        scan.y = nullptr;
        scan.grad_y = {s.y, 0, p.inner};
        scan.grad_last = scan.grad_first_state = state;
        scan.grad_u = s.grad_conv, scan.grad_delta = s.grad_delta, scan.grad_B = s.grad_B, scan.grad_C = s.grad_C;
        scan.grad_A = gradient(A_MATRIX), scan.grad_D = gradient(SKIP), scan.grad_delta_bias = gradient(DT_BIAS);
        run_scan(scan, this->set, threads, true);

        this->rows_in_groups(first_row, last_row, [&](int64_t first, int64_t last, int64_t group, T* workspace) {
            VectorSums<T> sums = sums_of(group);
            k.convolve_rows_backward(s, first, last, sums, workspace);
        });
    }

    void project_backward(int64_t first_row, int64_t last_row) {
        s.late_row = first_row;
        this->rows_in_groups(first_row, last_row, [&](int64_t first, int64_t last, int64_t group, T* workspace) {
            VectorSums<T> sums = sums_of(group);
            k.project_rows_backward(s, first, last, sums, workspace);
        });
        multiply_all({{s.grad_in, p.inner, p.inner, s.late_norm_in, p.channels, gradient(IN_PROJ)}},
                     (last_row - first_row) * s.width, 0, [](int64_t) {});
    }

    void add_weight_gradients(int64_t first_row, int64_t last_row) {
        const int64_t C = p.channels, E = p.inner, R = p.rank, N = p.states, O = p.out_channels;
        const T* low_rank = s.matrices + 2 * N;
        const std::vector<WeightGradient> products = {
            {s.grad_gate, E, E, s.norm_in, C, gradient(GATE_PROJ)},
            {s.grad_m, C, C, s.gated, E, gradient(OUT_PROJ)},
            {s.grad_out, O, O, s.norm_out, C, gradient(PROJECTION_WEIGHT)},
            {s.grad_matrices, 2 * N, s.matrix_stride, s.conv, E, gradient(X_PROJ) + R * E},
            {s.grad_matrices + 2 * N, R, s.matrix_stride, s.conv, E, gradient(X_PROJ)},
            {low_rank, R, s.matrix_stride, s.grad_delta, E, grad_dt_weight},
        };
        multiply_all(products, (last_row - first_row) * s.width, E / k.lanes, [&](int64_t block) {
            k.correlate_rows(s, first_row, last_row, block * k.lanes, grad_conv_weight);
        });
    }

    // Shares the products among the threads, and `others` further tasks.
    template <class F>
    void multiply_all(const std::vector<WeightGradient>& products, int64_t token_count, int64_t others, F other) {
        std::vector<std::pair<const WeightGradient*, int64_t>> tasks;
        for (const WeightGradient& product : products)
            for (int64_t row = 0; row < product.rows; row += ROWS_OF_TASK) tasks.push_back({&product, row});
        parallel_for(others + tasks.size(), threads, [&](int64_t i, int64_t) {
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

    void give_sums() {
        const int64_t C = p.channels, E = p.inner, R = p.rank, O = p.out_channels;
        for (int64_t group = 1; group < groups; ++group)
            for (int64_t i = 0; i < sums_count(); ++i) vector_sums[i] += vector_sums[group * sums_count() + i];
        const VectorSums<T> sums = sums_of(0);
        std::copy_n(sums.norm_in_weight, C, gradient(NORM_IN_WEIGHT));
        std::copy_n(sums.norm_in_bias, C, gradient(NORM_IN_BIAS));
        std::copy_n(sums.conv_bias, E, gradient(CONV_BIAS));
        std::copy_n(sums.norm_weight, E, gradient(NORM_WEIGHT));
        std::copy_n(sums.norm_bias, E, gradient(NORM_BIAS));
        std::copy_n(sums.scale, C, gradient(SCALE));
        std::copy_n(sums.norm_out_weight, C, gradient(NORM_OUT_WEIGHT));
        std::copy_n(sums.norm_out_bias, C, gradient(NORM_OUT_BIAS));
        std::copy_n(sums.projection_bias, O, gradient(PROJECTION_BIAS));
        for (int64_t e = 0; e < E; ++e) {
            for (int64_t tap = 0; tap < this->taps(); ++tap)
                gradient(CONV_WEIGHT)[e * this->taps() + tap] = grad_conv_weight[tap * E + e];
            for (int64_t r = 0; r < R; ++r) gradient(DT_WEIGHT)[e * R + r] = grad_dt_weight[r * E + e];
        }
    }

    T *conv_weight_back, *grad_conv_weight, *grad_dt_weight, *vector_sums;
    T* unpooled = nullptr;
    int64_t groups;
};

}  // namespace

void run_rvm_backward(const RvmProblem& problem, const InstructionSet& set, int64_t threads) {
    problem.is_double ? RvmBackward<double>(problem, set.rvm_of_double, set, threads).run()
                      : RvmBackward<float>(problem, set.rvm_of_float, set, threads).run();
}
