// Partitions depthwise convolutions into ranges of planes for the threads and combines their results.
#include <numeric>

#include "arena.hpp"
#include "parallel.hpp"
#include "scan.hpp"

namespace {

template <class T>
class Depthwise {
public:
    Depthwise(const DepthwiseProblem& problem, const DepthwiseKernels<T>& kernels, int64_t thread_count, bool backward)
        : p(problem), k(kernels), threads(std::max<int64_t>(thread_count, 1)), backward(backward) {
        const int64_t channels = p.channels, K = p.point_channels;
        // As many tasks as threads, or a multiple.
        parts = std::min(p.depth, threads / std::gcd(p.batch, threads));
        arena.reserve(conv_weight, taps() * channels);
        arena.reserve(conv_weight_back, taps() * channels);
        if (p.surroundings == STEM) arena.reserve(point_weight, K * channels);
        if (p.surroundings == HEAD) {
            arena.reserve(image.point, K, channels, k.lanes);
            arena.reserve(image.point_back, channels, K, k.lanes);
        }
        const int64_t rows = 2 * halo_rows_of(p.kernel_height, p.height) + 1, row = p.width * channels;
        buffers_count = whole_lines((p.surroundings == PLAIN ? 0 : 2 * rows * row) + row + p.map_width * channels +
                                    p.width * (K + k.lanes) + 64);
        arena.reserve(buffers, buffers_count * threads);
        if (backward) {
            sums_count = whole_lines((taps() + 1) * channels + K * channels + std::max(K, channels));
            arena.reserve(sums, sums_count * p.batch * parts);
            map_planes = p.surroundings == HEAD ? max_map_planes() : 0;
            arena.reserve(grad_maps, map_planes * p.map_height * p.map_width * channels * p.batch * parts);
        }
        arena.allocate_all();
        pack_parameters();
    }

    void run() {
        if (backward) std::fill_n(sums, sums_count * p.batch * parts, T(0));
        const int64_t tokens = p.batch * p.depth * p.height * p.width;
        if (!backward)
            use_huge_pages(p.out, tokens * (p.surroundings == HEAD ? p.point_channels : p.channels) * sizeof(T));
        if (p.grad_in && p.surroundings == PLAIN) use_huge_pages(p.grad_in, tokens * p.channels * sizeof(T));
        parallel_for(p.batch * parts, threads, [&](int64_t i, int64_t worker) {
            [[maybe_unused]] const DenormalsAreZero<T> mode;
            const DepthwiseImage<T> entry = image_of(i / parts);
            DepthwiseTask<T> task = task_of(i, worker);
            if (task.grad_map) std::fill_n(task.grad_map, grad_map_count(), T(0));
            backward ? k.backward(entry, task) : k.forward(entry, task);
        });
        if (backward) write_gradients();
        if (backward && p.surroundings == HEAD) write_map_gradient();
    }

private:
    int64_t taps() const { return 9 * p.kernel_height; }
    int64_t whole_lines(int64_t count) const { return ceil_div(count, 16) * 16; }
    int64_t first_plane(int64_t part) const { return part * p.depth / parts; }
    int64_t grad_map_count() const { return map_planes * p.map_height * p.map_width * p.channels; }
    // One plane before the first that a part's rows touch, as a margin for rounding.
    int64_t first_map_plane(int64_t part) const {
        return std::max<int64_t>(first_plane(part) * p.map_depth / p.depth - 1, 0);
    }
    int64_t last_map_plane(int64_t part) const {
        return std::min(first_plane(part + 1) * p.map_depth / p.depth + 2, p.map_depth);
    }
    int64_t max_map_planes() const {
        int64_t most = 0;
        for (int64_t part = 0; part < parts; ++part)
            most = std::max(most, last_map_plane(part) - first_map_plane(part));
        return most;
    }

    void pack_parameters() {
        const int64_t channels = p.channels, K = p.point_channels, count = taps();
        const T *conv = static_cast<const T*>(p.conv_weight), *point = static_cast<const T*>(p.point_weight);
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t tap = 0; tap < count; ++tap)
                conv_weight[tap * channels + c] = conv_weight_back[(count - 1 - tap) * channels + c] =
                    conv[c * count + tap];
        if (p.surroundings == STEM)
            for (int64_t i = 0; i < K; ++i)
                for (int64_t c = 0; c < channels; ++c) point_weight[i * channels + c] = point[c * K + i];
        if (p.surroundings == HEAD) {
            pack(image.point, k.lanes, point, 1, channels);
            pack(image.point_back, k.lanes, point, channels, 1);
        }
        image.surroundings = p.surroundings, image.depth = p.depth, image.height = p.height, image.width = p.width;
        image.channels = channels, image.kernel_height = p.kernel_height, image.point_channels = K;
        image.map_depth = p.map_depth, image.map_height = p.map_height, image.map_width = p.map_width;
        image.conv_weight = conv_weight, image.conv_weight_back = conv_weight_back;
        image.conv_bias = static_cast<const T*>(p.conv_bias);
        image.point_weight = point_weight, image.point_bias = static_cast<const T*>(p.point_bias);
    }

    DepthwiseImage<T> image_of(int64_t batch) const {
        DepthwiseImage<T> entry = image;
        const int64_t tokens = p.depth * p.height * p.width, channels = p.channels, K = p.point_channels;
        const int64_t map = p.map_depth * p.map_height * p.map_width * channels;
        const int64_t in = batch * (p.surroundings == STEM   ? tokens * K
                                    : p.surroundings == HEAD ? map
                                                             : tokens * channels);
        const int64_t out = batch * tokens * (p.surroundings == HEAD ? K : channels);
        entry.in = static_cast<const T*>(p.in) + in;
        if (p.out) entry.out = static_cast<T*>(p.out) + out;
        if (p.grad_out) entry.grad_out = static_cast<const T*>(p.grad_out) + out;
        if (p.grad_in) entry.grad_in = static_cast<T*>(p.grad_in) + in;
        return entry;
    }

    DepthwiseTask<T> task_of(int64_t i, int64_t worker) const {
        const int64_t part = i % parts, channels = p.channels, K = p.point_channels, row = p.width * channels;
        DepthwiseTask<T> task{};
        task.first_row = first_plane(part) * p.height, task.last_row = first_plane(part + 1) * p.height;
        task.ring_rows = 2 * halo_rows_of(p.kernel_height, p.height) + 1;
        T* at = buffers + worker * buffers_count;
        task.row = at, at += row;
        task.map_rows = at, at += p.map_width * channels;
        if (p.surroundings != PLAIN) {
            task.ring = at, at += task.ring_rows * row;
            task.grad_ring = at, at += task.ring_rows * row;
        }
        task.point_row = at;
        if (!backward) return task;
        at = sums + i * sums_count;
        task.grad_conv_weight = at, at += taps() * channels;
        task.grad_conv_bias = at, at += channels;
        task.grad_point_weight = at, at += K * channels;
        task.grad_point_bias = at;
        task.first_map_plane = first_map_plane(part);
        if (p.surroundings == HEAD) task.grad_map = grad_maps + i * grad_map_count();
        return task;
    }

    void write_gradients() {
        const int64_t channels = p.channels, K = p.point_channels, count = taps();
        for (int64_t i = 1; i < p.batch * parts; ++i)
            for (int64_t j = 0; j < sums_count; ++j) sums[j] += sums[i * sums_count + j];
        const DepthwiseTask<T> total = task_of(0, 0);
        for (int64_t c = 0; c < channels; ++c)
            for (int64_t tap = 0; tap < count; ++tap)
                static_cast<T*>(p.grad_conv_weight)[c * count + tap] = total.grad_conv_weight[tap * channels + c];
        std::copy_n(total.grad_conv_bias, channels, static_cast<T*>(p.grad_conv_bias));
        T* grad_point = static_cast<T*>(p.grad_point_weight);
        if (p.surroundings == STEM)
            for (int64_t i = 0; i < K; ++i)
                for (int64_t c = 0; c < channels; ++c)
                    grad_point[c * K + i] = total.grad_point_weight[i * channels + c];
        if (p.surroundings == HEAD) std::copy_n(total.grad_point_weight, K * channels, grad_point);
        if (p.surroundings != PLAIN)
            std::copy_n(total.grad_point_bias, p.surroundings == STEM ? channels : K,
                        static_cast<T*>(p.grad_point_bias));
    }

    // Sums the parts' gradients of the map, plane by plane.
    void write_map_gradient() {
        const int64_t plane = p.map_height * p.map_width * p.channels;
        parallel_for(p.batch * p.map_depth, threads, [&](int64_t i, int64_t) {
            T* to = static_cast<T*>(p.grad_in) + i * plane;
            std::fill_n(to, plane, T(0));
            for (int64_t part = 0; part < parts; ++part) {
                const int64_t at = i % p.map_depth - first_map_plane(part);
                if (at < 0 || at >= last_map_plane(part) - first_map_plane(part)) continue;
                const T* from = grad_maps + (i / p.map_depth * parts + part) * grad_map_count() + at * plane;
                for (int64_t j = 0; j < plane; ++j) to[j] += from[j];
            }
        });
    }

    const DepthwiseProblem& p;
    const DepthwiseKernels<T>& k;
    const int64_t threads;
    const bool backward;
    int64_t parts, buffers_count, sums_count = 0, map_planes = 0;
    DepthwiseImage<T> image{};
    Arena arena;
    T *conv_weight, *conv_weight_back, *buffers;
    T *point_weight = nullptr, *sums = nullptr, *grad_maps = nullptr;
};

}  // namespace

void run_depthwise(const DepthwiseProblem& problem, const InstructionSet& set, int64_t threads, bool backward) {
    problem.is_double ? Depthwise<double>(problem, set.depthwise_double, threads, backward).run()
                      : Depthwise<float>(problem, set.depthwise_float, threads, backward).run();
}
