// What a tile of CHUNK tokens of the scan reads and writes, and the workspace in between.
#pragma once

#include <limits>

#include "scan.hpp"
#include "vector_math.hpp"

namespace {

constexpr int64_t GROUP = 4;  // states that run through a tile together

INLINE int64_t groups_of(int64_t states) { return (states + GROUP - 1) / GROUP; }

// Tokens whose lane sums are computed together: GROUP * TOKENS vectors yield whole vectors of sums.
template <class T>
constexpr int64_t TOKENS = LANES<T> > GROUP ? LANES<T> / GROUP : 1;

template <class T>
struct Workspace {
    using V = Vec<T>;
    V dt[CHUNK], x[CHUNK], u[CHUNK], y[CHUNK];                     // step size, dt * u, u, output before the gate
    V grad_y[CHUNK], grad_x[CHUNK], grad_dt[CHUNK], slope[CHUNK];  // slope: d dt / d delta
    V decay[CHUNK][GROUP], decayed[CHUNK][GROUP];                  // exp(dt A) and exp(dt A) h_{t-1}
    V D, delta_bias;

    // Followed by A, A * EXP_SCALE and h, (states) vectors each, and by B, C and their gradients, (groups, CHUNK,
    // GROUP) scalars each.
    static size_t bytes(int64_t states) {
        return sizeof(Workspace) + 3 * states * sizeof(V) + 4 * groups_of(states) * CHUNK * GROUP * sizeof(T);
    }
    V* A() { return reinterpret_cast<V*>(this + 1); }
    V* scaled_A(int64_t states) { return A() + states; }
    V* h(int64_t states) { return A() + 2 * states; }
    T* matrix(int64_t which, int64_t states) {
        return reinterpret_cast<T*>(A() + 3 * states) + which * groups_of(states) * CHUNK * GROUP;
    }
};

template <class T>
size_t workspace_bytes(int64_t states) {
    return Workspace<T>::bytes(states);
}

template <class T>
INLINE const T* row(const Rows& rows, int64_t batch, int64_t token) {
    return static_cast<const T*>(rows.data) + batch * rows.batch_stride + token * rows.token_stride;
}

// Reads a tile's rows of B or C into (groups, CHUNK, GROUP); tokens up to a multiple of TOKENS are zero.
template <class T>
INLINE void read_matrix(const Rows& rows, int64_t batch, int64_t first, int64_t count, int64_t states, T* tile) {
    for (int64_t g = 0; g < groups_of(states); ++g, tile += CHUNK * GROUP) {
        const int64_t width = states - g * GROUP < GROUP ? states - g * GROUP : GROUP;
        for (int64_t t = 0; t < count; ++t) {
            const T* from = row<T>(rows, batch, first + t) + g * GROUP;
            if (width == GROUP)
                memcpy(tile + t * GROUP, from, sizeof(Quad<T>));
            else
                for (int64_t j = 0; j < GROUP; ++j) tile[t * GROUP + j] = j < width ? from[j] : T(0);
        }
        for (int64_t i = count * GROUP; i < (count + TOKENS<T> - 1) / TOKENS<T> * TOKENS<T> * GROUP; ++i) tile[i] = 0;
    }
}

// The inverse, for gradients: overwrites the rows or adds to them.
template <class T>
INLINE void write_matrix(const T* tile, int64_t first, int64_t count, int64_t states, bool add, T* rows) {
    for (int64_t g = 0; g < groups_of(states); ++g, tile += CHUNK * GROUP) {
        const int64_t width = states - g * GROUP < GROUP ? states - g * GROUP : GROUP;
        for (int64_t t = 0; t < count; ++t) {
            T* to = rows + (first + t) * states + g * GROUP;
            for (int64_t j = 0; j < width; ++j) to[j] = tile[t * GROUP + j] + (add ? to[j] : T(0));
        }
    }
}

// A * EXP_SCALE, finite where A is: 0 times infinity would be NaN, and exp(0 A) is 1.
template <class T>
INLINE T scaled_exponent(T A) {
    constexpr T largest = std::numeric_limits<T>::max(), bound = largest / EXP_SCALE<T>;
    if (A > bound && A <= largest) return largest;
    if (A < -bound && A >= -largest) return -largest;
    return A * EXP_SCALE<T>;
}

// Reads the block's token-independent parameters.
template <class T>
INLINE void read_parameters(const ScanProblem& p, const Span& span, int64_t valid, Workspace<T>& w) {
    const int64_t channel = span.block * LANES<T>, N = p.states;
    for (int64_t n = 0; n < N; ++n) {
        Vec<T> a{}, scaled{};
        for (int64_t i = 0; i < valid; ++i) {
            a[i] = static_cast<const T*>(p.A)[(channel + i) * N + n];
            scaled[i] = scaled_exponent(a[i]);
        }
        w.A()[n] = a;
        w.scaled_A(N)[n] = scaled;
    }
    w.D = p.D ? load(static_cast<const T*>(p.D) + channel, valid) : Vec<T>{};
    w.delta_bias = p.delta_bias ? load(static_cast<const T*>(p.delta_bias) + channel, valid) : Vec<T>{};
}

// Fills a tile's dt, x, u and, with `slopes`, slope; padding up to a multiple of TOKENS leaves states unchanged.
template <class T, bool slopes>
INLINE void read_tokens(const ScanProblem& p, const Span& span, int64_t first, int64_t count, int64_t valid,
                        Vec<T>* dt_sum, Workspace<T>& w) {
    const int64_t channel = span.block * LANES<T>;
    for (int64_t t = 0; t < count; ++t) {
        Vec<T> dt = w.delta_bias;
        const T* delta = row<T>(p.delta, span.batch, first + t);
        if (p.delta_rank == 0) dt += load(delta + channel, valid);
        for (int64_t r = 0; r < p.delta_rank; ++r)
            dt += load(static_cast<const T*>(p.delta_weight) + r * p.channels + channel, valid) * delta[r];
        if (slopes) w.slope[t] = p.delta_softplus ? sigmoid(dt) : Vec<T>{} + T(1);
        if (p.delta_softplus) dt = softplus(dt);
        w.u[t] = load(row<T>(p.u, span.batch, first + t) + channel, valid);
        w.x[t] = dt * w.u[t];
        w.dt[t] = dt;
        if (dt_sum) *dt_sum += dt;
    }
    for (int64_t t = count; t % TOKENS<T>; ++t) w.dt[t] = w.x[t] = w.u[t] = w.grad_y[t] = Vec<T>{};
}

// Prefetches a tile's cache lines into L2 while the previous tile is computed: rows are too far apart for the hardware
// prefetcher.
template <class T>
INLINE void prefetch_tile(const ScanProblem& p, const Span& span, int64_t first, bool backward) {
    const int64_t channel = span.block * LANES<T>, last = first + CHUNK < span.last ? first + CHUNK : span.last;
    const auto read = [&](const Rows& rows, int64_t t) {
        if (rows.data) __builtin_prefetch(row<T>(rows, span.batch, t) + channel, 0, 2);
    };
    const auto write = [&](void* rows, int64_t t) {
        if (rows) __builtin_prefetch(static_cast<T*>(rows) + (span.batch * p.length + t) * p.channels + channel, 1, 2);
    };
    for (int64_t t = first; t < last; ++t) {
        read(p.u, t), read(p.z, t);
        if (p.delta_rank == 0) read(p.delta, t);
        if (backward)
            read(p.grad_y, t), write(p.grad_u, t), write(p.grad_delta, t), write(p.grad_z, t);
        else
            write(p.y, t);
    }
}

// Writes a tile's gradients of u, delta and z, and adds its contribution to those of D and delta_bias.
template <class T>
INLINE void write_token_gradients(const ScanProblem& p, const Span& span, int64_t first, int64_t count, int64_t valid,
                                  Workspace<T>& w, Vec<T>& grad_D, Vec<T>& grad_bias) {
    using V = Vec<T>;
    const int64_t channel = span.block * LANES<T>;
    for (int64_t t = 0; t < count; ++t) {
        const int64_t at = (span.batch * p.length + first + t) * p.channels + channel;
        const V grad_delta = (w.grad_dt[t] + w.grad_x[t] * w.u[t]) * w.slope[t];
        store(static_cast<T*>(p.grad_u) + at, w.grad_x[t] * w.dt[t] + w.grad_y[t] * w.D, valid);
        store(static_cast<T*>(p.grad_delta) + at, grad_delta, valid);
        grad_D += w.grad_y[t] * w.u[t];
        grad_bias += grad_delta;
        if (p.z.data) {
            const V z = load(row<T>(p.z, span.batch, first + t) + channel, valid), s = sigmoid(z);
            const V grad_out = load(row<T>(p.grad_y, span.batch, first + t) + channel, valid);
            store(static_cast<T*>(p.grad_z) + at, grad_out * w.y[t] * s * (z * (T(1) - s) + T(1)), valid);
        }
    }
}

}  // namespace
