// Vectors of VECTOR_BYTES bytes and the functions that the scan needs. Included once per instruction set; everything is
// in an unnamed namespace, so that the linker never merges code of different instruction sets.
#pragma once

#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace {

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float type __attribute__((vector_size(VECTOR_BYTES)));
};
template <>
struct VectorOf<double> {
    typedef double type __attribute__((vector_size(VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;
typedef int32_t Ints __attribute__((vector_size(VECTOR_BYTES)));

template <class T>
constexpr int64_t LANES = VECTOR_BYTES / sizeof(T);

// Four values of any alignment.
template <class T>
struct Quad {
    T value[4];
};

#define INLINE inline __attribute__((always_inline))

// Loads `valid` elements; the lanes beyond are zero.
template <class T>
INLINE Vec<T> load(const T* from, int64_t valid) {
    Vec<T> v{};
    if (valid == LANES<T>)
        memcpy(&v, from, sizeof v);
    else
        for (int64_t i = 0; i < valid; ++i) v[i] = from[i];
    return v;
}

template <class T>
INLINE void store(T* to, Vec<T> v, int64_t valid) {
    if (valid == LANES<T>)
        memcpy(to, &v, sizeof v);
    else
        for (int64_t i = 0; i < valid; ++i) to[i] = v[i];
}

// The same value in all lanes. Browsers make WebAssembly's vector constants anew at every use, in loops too: that took a
// third of the scan's time. A value whose origin the compiler cannot see stays in a register or in memory.
INLINE Vec<float> constant(float value) {
    Vec<float> lanes = value - Vec<float>{};
#if defined(__wasm__)
    __asm__("" : "+r"(lanes));
#endif
    return lanes;
}

// 2^x with an error of at most 2.5 ulp (2.1 with fused multiply-add, 1.8 with AVX-512), for any x: 0 below about
// 2^-126, infinity from 2^127.5 on; NaN stays NaN. Where x is a product, the compiler may use it unrounded.
#if VECTOR_BYTES == 64
// 2^x = 2^k 2^r with k a multiple of 1/32 and |r| <= 1/64. The fraction of 2^k comes from a table in two registers; 2^r
// = 1 + r p(r) by a minimax polynomial (relative error 5.3e-8).
INLINE Vec<float> exp2_(Vec<float> x) {
    // 2^(i / 32)
    const Vec<float> low = {1.0f,        1.02189715f, 1.04427378f, 1.0671404f,  1.09050773f, 1.11438674f,
                            1.13878863f, 1.16372486f, 1.18920712f, 1.21524736f, 1.24185781f, 1.26905096f,
                            1.29683955f, 1.32523664f, 1.35425555f, 1.38390988f};
    const Vec<float> high = {1.41421356f, 1.44518081f, 1.47682615f, 1.50916443f, 1.54221083f, 1.57598085f,
                             1.61049033f, 1.64575548f, 1.68179283f, 1.71861930f, 1.75625216f, 1.79470907f,
                             1.83400809f, 1.87416763f, 1.91520656f, 1.95714412f};
    // Adding 1.5 * 2^18 rounds to a multiple of 1/32, whose fraction is then in the five lowest bits.
    constexpr float shift = 393216.0f;
    const Vec<float> shifted = x + shift, k = shifted - shift;
    // Far out r is the error of rounding a product, which may be large, or infinity minus infinity. vrangeps takes what
    // is nearer to 0, or 1 instead of NaN: the fraction stays positive and finite, and k alone decides.
    const Vec<float> r = _mm512_range_ps(x - k, _mm512_set1_ps(1.0f), 2);
    const Vec<float> fraction = _mm512_permutex2var_ps(low, _mm512_castps_si512(shifted), high);
    // vscalefps takes the integer below k and rounds to denormals, 0 and infinity; a NaN in k stays.
    return _mm512_scalef_ps(fraction + fraction * r * (r * 0.24022649f + 0.6931573f), k);
}
#else
// A NaN fails the comparison and stays.
INLINE Vec<float> clamp(Vec<float> x, float low, float high) {
#if VECTOR_BYTES == 32
    // The second operand is returned where one is NaN.
    return _mm256_min_ps(_mm256_set1_ps(high), _mm256_max_ps(_mm256_set1_ps(low), x));
#else
    const Vec<float> lows = constant(low), highs = constant(high);
    x = x < lows ? lows : x;
    return x > highs ? highs : x;
#endif
}

// 2^x = 2^k 2^r with an integer k, |r| <= 1/2 and 2^r = 1 + r p(r); p is a minimax polynomial (relative error 9.2e-8).
INLINE Vec<float> exp2_(Vec<float> x) {
    // Adding 1.5 * 2^23 rounds to an integer; 127 more makes its low bits the biased exponent of 2^k.
    const Vec<float> shift = constant(12582912.0f + 127.0f);
    x = clamp(x, -127.0f, 128.0f);
    const Vec<float> shifted = x + shift;
    const Vec<float> r = x - (shifted - shift);
    Vec<float> p = r * constant(1.32647271401e-3f) + constant(9.67151263996e-3f);
    p = p * r + constant(5.55073374347e-2f);
    p = p * r + constant(2.40222420854e-1f);
    p = p * r + constant(6.93146977599e-1f);
    return (p * r + constant(1.0f)) * (Vec<float>)((Ints)shifted << 23);
}
#endif

// scaled_exp(x * EXP_SCALE) = exp(x): the factor is folded into A once.
template <class T>
constexpr T EXP_SCALE = 1;
template <>
constexpr float EXP_SCALE<float> = 1.44269504088896340736f;

INLINE Vec<float> scaled_exp(Vec<float> x) { return exp2_(x); }

INLINE Vec<double> scaled_exp(Vec<double> x) {
    for (int64_t i = 0; i < LANES<double>; ++i) x[i] = exp(x[i]);
    return x;
}

INLINE Vec<float> absolute(Vec<float> x) { return (Vec<float>)((Ints)x & 0x7fffffff); }

INLINE Vec<float> sigmoid(Vec<float> x) {
    const Vec<float> e = exp2_(absolute(x) * constant(-EXP_SCALE<float>)), one = constant(1.0f);
    return (x < 0.0f ? e : e * 0.0f + one) / (e + one);
}

INLINE Vec<double> sigmoid(Vec<double> x) {
    for (int64_t i = 0; i < LANES<double>; ++i) x[i] = 1 / (1 + exp(-x[i]));
    return x;
}

// log(1 + e^x) without cancellation: max(x, 0) + log1p(e^-|x|); log1p(e) = 2 artanh(s), s = e / (2 + e) <= 1/3, by a
// polynomial in s^2 (relative error 5e-9).
INLINE Vec<float> softplus(Vec<float> x) {
    const Vec<float> e = exp2_(absolute(x) * constant(-EXP_SCALE<float>)), two = constant(2.0f);
    const Vec<float> s = e / (e + two), w = s * s;
    Vec<float> p = w * constant(1.40122293962e-1f) + constant(1.39995705448e-1f);
    p = p * w + constant(2.00108495291e-1f);
    p = p * w + constant(3.33332065664e-1f);
    return (x > 0.0f ? x : Vec<float>{}) + (s + s * w * p) * two;
}

// Linear above 20, like PyTorch's.
INLINE Vec<double> softplus(Vec<double> x) {
    for (int64_t i = 0; i < LANES<double>; ++i) x[i] = x[i] > 20 ? x[i] : log1p(exp(x[i]));
    return x;
}

#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, Ints{__VA_ARGS__})
#endif

// Lane i of the result is the sum of all lanes of p[i].
INLINE Vec<float> lane_sums(const Vec<float>* p) {
    // Adds neighbours within each quarter, twice, then the quarters.
    Vec<float> q[LANES<float> / 4];
    for (int64_t i = 0; i < LANES<float> / 4; ++i) {
        const Vec<float>* v = p + 4 * i;
#if VECTOR_BYTES == 64
#define PAIR_SUMS(a, b)                                                        \
    SHUFFLE(a, b, 0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30) + \
        SHUFFLE(a, b, 1, 3, 17, 19, 5, 7, 21, 23, 9, 11, 25, 27, 13, 15, 29, 31)
#elif VECTOR_BYTES == 32
#define PAIR_SUMS(a, b) SHUFFLE(a, b, 0, 2, 8, 10, 4, 6, 12, 14) + SHUFFLE(a, b, 1, 3, 9, 11, 5, 7, 13, 15)
#else
#define PAIR_SUMS(a, b) SHUFFLE(a, b, 0, 2, 4, 6) + SHUFFLE(a, b, 1, 3, 5, 7)
#endif
        const Vec<float> first = PAIR_SUMS(v[0], v[1]), second = PAIR_SUMS(v[2], v[3]);
        q[i] = PAIR_SUMS(first, second);
    }
#if VECTOR_BYTES == 64
#define QUARTER_SUMS(a, b)                                                    \
    SHUFFLE(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) + \
        SHUFFLE(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31)
    const Vec<float> low = QUARTER_SUMS(q[0], q[1]), high = QUARTER_SUMS(q[2], q[3]);
    return QUARTER_SUMS(low, high);
#elif VECTOR_BYTES == 32
    return SHUFFLE(q[0], q[1], 0, 1, 2, 3, 8, 9, 10, 11) + SHUFFLE(q[0], q[1], 4, 5, 6, 7, 12, 13, 14, 15);
#else
    return q[0];
#endif
}

INLINE Vec<double> lane_sums(const Vec<double>* p) {
    Vec<double> sums{};
    for (int64_t i = 0; i < LANES<double>; ++i)
        for (int64_t lane = 0; lane < LANES<double>; ++lane) sums[i] += p[i][lane];
    return sums;
}

}  // namespace
