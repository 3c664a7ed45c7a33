#include "resample.hpp"

#include <algorithm>
#include <cmath>

namespace {

constexpr int64_t LINES = 16;    // that run through a filter side by side
constexpr int64_t PADDING = 12;  // scipy.ndimage._interpolation._prepad_for_spline_filter, mode "nearest"

// scipy/ndimage/src/ni_splines.c, the cubic B-spline's pole, boundary "mirror", on (count, LINES).
void prefilter_cubic(double* c, int64_t count) {
    const double z = std::sqrt(3.0) - 2.0, gain = (1.0 - z) * (1.0 - 1.0 / z), z_last = std::pow(z, double(count - 1));
    const auto row = [&](int64_t i) { return c + i * LINES; };
    for (int64_t i = 0; i < count * LINES; ++i) c[i] *= gain;
    for (int64_t j = 0; j < LINES; ++j) row(0)[j] += z_last * row(count - 1)[j];
    double z_i = z;
    for (int64_t i = 1; i < count - 1; ++i, z_i *= z)
        for (int64_t j = 0; j < LINES; ++j) row(0)[j] += z_i * (row(i)[j] + z_last * row(count - 1 - i)[j]);
    for (int64_t j = 0; j < LINES; ++j) row(0)[j] /= 1.0 - z_last * z_last;
    for (int64_t i = 1; i < count; ++i)
        for (int64_t j = 0; j < LINES; ++j) row(i)[j] += z * row(i - 1)[j];
    for (int64_t j = 0; j < LINES; ++j)
        row(count - 1)[j] = (z * row(count - 2)[j] + row(count - 1)[j]) * z / (z * z - 1.0);
    for (int64_t i = count - 2; i >= 0; --i)
        for (int64_t j = 0; j < LINES; ++j) row(i)[j] = z * (row(i + 1)[j] - row(i)[j]);
}

// The taps of one output voxel: (order + 1) neighbours from `first` on.
struct Taps {
    int64_t first;
    double weight[4];
};

// ni_splines.c, get_spline_interpolation_weights.
Taps cubic_taps(double at) {
    const double floor = std::floor(at), y = at - floor, z = 1.0 - y;
    Taps taps{int64_t(floor) - 1, {}};
    taps.weight[1] = (y * y * (y - 2.0) * 3.0 + 4.0) / 6.0;
    taps.weight[2] = (z * z * (z - 2.0) * 3.0 + 4.0) / 6.0;
    taps.weight[0] = z * z * z / 6.0;
    taps.weight[3] = 1.0 - taps.weight[0] - taps.weight[1] - taps.weight[2];
    return taps;
}

// (outer, size, inner) -> (outer, new_size, inner).
template <class T>
void resample_axis(const T* in, int64_t outer, int64_t size, int64_t inner, T* out, int64_t new_size, int64_t order) {
    const bool cubic = order == 3;
    const int64_t padding = cubic ? PADDING : 0, padded = size + 2 * padding;
    const Buffer<double> line(padded * LINES);
    std::vector<Taps> taps;
    if (cubic)
        for (int64_t k = 0; k < new_size; ++k)
            taps.push_back(cubic_taps(source_coordinate(k, size, new_size) + double(padding)));
    const std::vector<LinearTap> linear = cubic ? std::vector<LinearTap>() : linear_taps(size, new_size, order);
    for (int64_t first = 0; first < outer * inner; first += LINES) {
        const int64_t count = std::min(LINES, outer * inner - first);
        int64_t from[LINES], to[LINES];
        for (int64_t j = 0; j < LINES; ++j) {
            const int64_t which = first + std::min(j, count - 1);
            from[j] = which / inner * size * inner + which % inner;
            to[j] = which / inner * new_size * inner + which % inner;
        }
        for (int64_t i = 0; i < padded; ++i) {
            const int64_t at = std::clamp<int64_t>(i - padding, 0, size - 1) * inner;
            for (int64_t j = 0; j < LINES; ++j) line[i * LINES + j] = double(in[from[j] + at]);
        }
        if (cubic) prefilter_cubic(line.data(), padded);
        for (int64_t k = 0; k < new_size; ++k) {
            double value[LINES];
            if (cubic) {
                const double* row = line.data() + taps[k].first * LINES;
                for (int64_t j = 0; j < LINES; ++j)
                    value[j] = row[j] * taps[k].weight[0] + row[LINES + j] * taps[k].weight[1] +
                               row[2 * LINES + j] * taps[k].weight[2] + row[3 * LINES + j] * taps[k].weight[3];
            } else {
                const double *a = line.data() + linear[k].first * LINES, *b = line.data() + linear[k].second * LINES;
                const double weight = linear[k].weight;
                for (int64_t j = 0; j < LINES; ++j) value[j] = a[j] * (1.0 - weight) + b[j] * weight;
            }
            for (int64_t j = 0; j < count; ++j) out[to[j] + k * inner] = T(value[j]);
        }
    }
}

// skimage's _clip_warp_output: to the range of what went in.
template <class T>
void clip(const T* in, int64_t count, T* to, int64_t new_count) {
    const auto [least, most] = std::minmax_element(in, in + count);
    for (int64_t i = 0; i < new_count; ++i) to[i] = std::clamp(to[i], *least, *most);
}

// Each plane across the axis is resized by itself, so that it keeps its own range.
template <class T>
void clip_planes(const T* in, const Size& size, T* to, const Size& new_size, int64_t axis) {
    const auto for_plane = [axis](const Size& s, int64_t plane, auto&& f) {
        Size at;
        for (at[0] = 0; at[0] < (axis == 0 ? 1 : s[0]); ++at[0])
            for (at[1] = 0; at[1] < (axis == 1 ? 1 : s[1]); ++at[1])
                for (at[2] = 0; at[2] < (axis == 2 ? 1 : s[2]); ++at[2]) {
                    Size here = at;
                    here[axis] = plane;
                    f((here[0] * s[1] + here[1]) * s[2] + here[2]);
                }
    };
    for (int64_t plane = 0; plane < size[axis]; ++plane) {
        T least = 0, most = 0;
        bool first = true;
        for_plane(size, plane, [&](int64_t i) {
            least = first ? in[i] : std::min(least, in[i]);
            most = first ? in[i] : std::max(most, in[i]);
            first = false;
        });
        for_plane(new_size, plane, [&](int64_t i) { to[i] = std::clamp(to[i], least, most); });
    }
}

}  // namespace

ResamplingPlan plan_resampling(const LightmResampling& how, const Spacing& spacing, const Spacing& new_spacing) {
    const auto most = [](const Spacing& s) { return *std::max_element(s.begin(), s.end()); };
    const auto anisotropic = [&](const Spacing& s) {
        return most(s) / *std::min_element(s.begin(), s.end()) > how.anisotropy_threshold;
    };
    const Spacing* decisive = nullptr;
    if (how.force_separate_z == 1 || (how.force_separate_z < 0 && anisotropic(spacing)))
        decisive = &spacing;
    else if (how.force_separate_z < 0 && anisotropic(new_spacing))
        decisive = &new_spacing;
    ResamplingPlan plan{{how.order, how.order, how.order}, -1};
    if (!decisive) return plan;
    int64_t count = 0, axis = -1;
    for (int64_t a = 0; a < 3; ++a)
        if (most(*decisive) / (*decisive)[a] == 1.0) ++count, axis = a;
    // Two or three axes of the lowest resolution: nothing to separate.
    if (count == 1) plan.separate_axis = axis, plan.order[axis] = how.order_z;
    return plan;
}

std::vector<LinearTap> linear_taps(int64_t size, int64_t new_size, int64_t order) {
    std::vector<LinearTap> taps;
    for (int64_t k = 0; k < new_size; ++k) {
        const double at = source_coordinate(k, size, new_size), last = double(size - 1);
        if (order == 0 || size == new_size) {
            const int64_t nearest = int64_t(std::floor(std::clamp(at, 0.0, last) + 0.5));
            taps.push_back({nearest, nearest, 0.0});
        } else {
            const double inside = std::clamp(at, 0.0, last), floor = std::floor(inside);
            taps.push_back({int64_t(floor), std::min(int64_t(floor) + 1, size - 1), inside - floor});
        }
    }
    return taps;
}

template <class T>
void resample(const T* in, const Size& size, T* out, const Size& new_size, const ResamplingPlan& plan) {
    const int64_t separate = plan.separate_axis;
    // The axis that shrinks most comes first, so that what lies between is small; a separate axis comes last.
    std::vector<int64_t> axes;
    for (int64_t a = 0; a < 3; ++a)
        if (size[a] != new_size[a]) axes.push_back(a);
    std::stable_sort(axes.begin(), axes.end(), [&](int64_t a, int64_t b) {
        if ((a == separate) != (b == separate)) return b == separate;
        return double(new_size[a]) / double(size[a]) < double(new_size[b]) / double(size[b]);
    });
    if (axes.empty()) {
        std::copy_n(in, voxels(size), out);
        return;
    }
    Buffer<T> before, after;
    const T* from = in;
    Size at = size;
    for (size_t i = 0; i < axes.size(); ++i) {
        const int64_t a = axes[i];
        Size next = at;
        next[a] = new_size[a];
        T* to = out;
        if (i + 1 < axes.size()) after = Buffer<T>(voxels(next)), to = after.data();
        int64_t outer = 1, inner = 1;
        for (int64_t b = 0; b < a; ++b) outer *= at[b];
        for (int64_t b = a + 1; b < 3; ++b) inner *= at[b];
        resample_axis(from, outer, at[a], inner, to, new_size[a], plan.order[a]);
        before = std::move(after);
        from = to, at = next;
        const bool last_in_planes = i + 1 == axes.size() || axes[i + 1] == separate;
        if (separate < 0) {
            if (i + 1 == axes.size()) clip(in, voxels(size), to, voxels(at));
        } else if (a != separate && last_in_planes) {
            clip_planes(in, size, to, at, separate);
        }
    }
}

template void resample(const float*, const Size&, float*, const Size&, const ResamplingPlan&);
template void resample(const double*, const Size&, double*, const Size&, const ResamplingPlan&);
