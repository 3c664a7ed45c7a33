// The selective scan of one block of channels, one channel per vector lane, forward and backward.
//
// h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t;  y_t = (C_t h_t + D u_t) SiLU(z_t);  dt = softplus(delta + delta_bias)
//
// Work proceeds in tiles of CHUNK tokens: what depends on the token and channel alone is computed first, then up to
// four states at a time run through the tile in registers, then the tile's results are written.
#pragma once

#include <limits>

#include "scan.hpp"
#include "vector_math.hpp"

namespace {

constexpr int64_t GROUP = 4;  // states that run through a tile together

INLINE int64_t groups_of(int64_t states) { return (states + GROUP - 1) / GROUP; }

// Tokens whose lane sums are taken together: GROUP * TOKENS vectors fill whole vectors of sums.
template <class T>
constexpr int64_t TOKENS = LANES<T> > GROUP ? LANES<T> / GROUP : 1;

template <class T>
struct Workspace {
    using V = Vec<T>;
    V dt[CHUNK], x[CHUNK], u[CHUNK], y[CHUNK];  // step size, dt * u, u, output before the gate
    V grad_y[CHUNK], grad_x[CHUNK], grad_dt[CHUNK], slope[CHUNK];  // slope: d dt / d delta
    V decay[CHUNK][GROUP], decayed[CHUNK][GROUP];  // exp(dt A) and exp(dt A) h_{t-1}
    V D, delta_bias;
    V most_dt;  // a longer step would take dt A beyond finite numbers; exp(dt A) is 0 (or infinity) long before

    // Followed by A, A * EXP_SCALE and h, (states) vectors each, and by B, C and their gradients, (groups, CHUNK, GROUP)
    // scalars each.
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

// The inverse for gradients: writes the rows or adds to them.
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

// The block's part of what does not depend on the token.
template <class T>
INLINE void read_parameters(const ScanProblem& p, const Span& span, int64_t valid, Workspace<T>& w) {
    const int64_t channel = span.block * LANES<T>, N = p.states;
    Vec<T> largest = Vec<T>{} + T(1);
    for (int64_t n = 0; n < N; ++n) {
        Vec<T> a{};
        for (int64_t i = 0; i < valid; ++i) a[i] = static_cast<const T*>(p.A)[(channel + i) * N + n];
        w.A()[n] = a;
        w.scaled_A(N)[n] = a * EXP_SCALE<T>;
        for (int64_t i = 0; i < LANES<T>; ++i) {
            const T size = a[i] < 0 ? -a[i] : a[i];
            if (size > largest[i]) largest[i] = size;
        }
    }
    w.most_dt = std::numeric_limits<T>::max() / 2 / largest;
    w.D = p.D ? load(static_cast<const T*>(p.D) + channel, valid) : Vec<T>{};
    w.delta_bias = p.delta_bias ? load(static_cast<const T*>(p.delta_bias) + channel, valid) : Vec<T>{};
}

// Fills dt, x and u of a tile, with `slopes` also slope; tokens up to a multiple of TOKENS have no effect on a state.
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
        w.dt[t] = dt > w.most_dt ? w.most_dt : dt;  // a NaN stays
        if (dt_sum) *dt_sum += dt;
    }
    for (int64_t t = count; t % TOKENS<T>; ++t) w.dt[t] = w.x[t] = w.u[t] = w.grad_y[t] = Vec<T>{};
}

// Fetches the span's lines of a tile into the L2 cache while another one is at work: a row's are further apart than the
// processor looks ahead.
template <class T>
INLINE void prefetch_tile(const ScanProblem& p, const Span& span, int64_t first, bool backward) {
    const int64_t channel = span.block * LANES<T>, last = first + CHUNK < span.last ? first + CHUNK : span.last;
    const auto read = [&](const Rows& rows, int64_t t) {
        if (rows.data) __builtin_prefetch(row<T>(rows, span.batch, t) + channel, 0, 2);
    };
    const auto write = [&](void* rows, int64_t t) {
        if (rows)
            __builtin_prefetch(static_cast<T*>(rows) + (span.batch * p.length + t) * p.channels + channel, 1, 2);
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

// States n ... n + J - 1 run through the tile whose rows of B and C begin at token `first`; with `emit` their share of the
// output is added to y.
template <class T, int64_t J, bool emit>
INLINE void advance(Workspace<T>& w, int64_t n, const ScanProblem& p, int64_t batch, int64_t first, int64_t count,
                    Vec<T>* h) {
    Vec<T> A[J], state[J];
    for (int64_t j = 0; j < J; ++j) A[j] = w.scaled_A(p.states)[n + j], state[j] = h[n + j];
    const T* B = row<T>(p.B, batch, first) + n;
    const T* C = emit ? row<T>(p.C, batch, first) + n : nullptr;
    for (int64_t t = 0; t < count; ++t, B += p.B.token_stride, C += emit ? p.C.token_stride : 0) {
        const Vec<T> dt = w.dt[t], x = w.x[t];
        Vec<T> y = w.y[t];
        for (int64_t j = 0; j < J; ++j) {
            state[j] = scaled_exp(dt * A[j]) * state[j] + x * B[j];
            if (emit) y += state[j] * C[j];
        }
        if (emit) w.y[t] = y;
    }
    for (int64_t j = 0; j < J; ++j) h[n + j] = state[j];
}

// The gradient of states n ... n + J - 1 runs backwards through a tile whose outputs' gradients are in grad_y.
template <class T, int64_t J>
INLINE void retreat(Workspace<T>& w, int64_t n, int64_t count, int64_t states, Vec<T>* grad) {
    const T* C = w.matrix(1, states) + n * CHUNK;
    Vec<T> A[J], g[J];
    for (int64_t j = 0; j < J; ++j) A[j] = w.scaled_A(states)[n + j], g[j] = grad[n + j];
    for (int64_t t = count - 1; t >= 0; --t)
        for (int64_t j = 0; j < J; ++j)
            g[j] = (g[j] + w.grad_y[t] * C[t * GROUP + j]) * scaled_exp(w.dt[t] * A[j]);
    for (int64_t j = 0; j < J; ++j) grad[n + j] = g[j];
}

template <class T>
INLINE void store_lane_sums(const Vec<T> (&products)[TOKENS<T> * GROUP], T* to) {
    for (int64_t i = 0; i < TOKENS<T> * GROUP; i += LANES<T>) store(to + i, lane_sums(products + i), LANES<T>);
}

// States n ... n + J - 1: recomputes them through the tile from h, then runs their gradient `grad` back through it.
template <class T, int64_t J>
INLINE void differentiate(Workspace<T>& w, int64_t n, int64_t count, int64_t states, bool with_y, const Vec<T>* h,
                          Vec<T>* grad, Vec<T>* grad_A) {
    using V = Vec<T>;
    const T* B = w.matrix(0, states) + n * CHUNK;
    const T* C = w.matrix(1, states) + n * CHUNK;
    T* grad_B = w.matrix(2, states) + n * CHUNK;
    T* grad_C = w.matrix(3, states) + n * CHUNK;
    V products[TOKENS<T> * GROUP] = {};
    V A[J], state[J];
    for (int64_t j = 0; j < J; ++j) A[j] = w.scaled_A(states)[n + j], state[j] = h[n + j];
    for (int64_t first = 0; first < count; first += TOKENS<T>) {
        for (int64_t i = 0; i < TOKENS<T>; ++i) {
            const int64_t t = first + i;
            const V dt = w.dt[t], x = w.x[t], grad_y = w.grad_y[t];
            for (int64_t j = 0; j < J; ++j) {
                const V decay = scaled_exp(dt * A[j]), decayed = decay * state[j];
                w.decay[t][j] = decay;
                w.decayed[t][j] = decayed;
                state[j] = decayed + x * B[t * GROUP + j];
                products[i * GROUP + j] = state[j] * grad_y;
            }
            if (with_y) {
                V y = w.y[t];
                for (int64_t j = 0; j < J; ++j) y += state[j] * C[t * GROUP + j];
                w.y[t] = y;
            }
        }
        store_lane_sums<T>(products, grad_C + first * GROUP);
    }
    V g[J], through_A[J];
    for (int64_t j = 0; j < J; ++j) A[j] = w.A()[n + j], g[j] = grad[n + j], through_A[j] = grad_A[n + j];
    for (int64_t first = (count - 1) / TOKENS<T> * TOKENS<T>; first >= 0; first -= TOKENS<T>) {
        for (int64_t i = TOKENS<T> - 1; i >= 0; --i) {
            const int64_t t = first + i;
            const V dt = w.dt[t], x = w.x[t], grad_y = w.grad_y[t];
            V grad_x = w.grad_x[t], grad_dt = w.grad_dt[t];
            for (int64_t j = 0; j < J; ++j) {
                g[j] += grad_y * C[t * GROUP + j];
                products[i * GROUP + j] = g[j] * x;
                grad_x += g[j] * B[t * GROUP + j];
                const V exponent = g[j] * w.decayed[t][j];
                grad_dt += exponent * A[j];
                through_A[j] += exponent * dt;
                g[j] *= w.decay[t][j];
            }
            w.grad_x[t] = grad_x;
            w.grad_dt[t] = grad_dt;
        }
        store_lane_sums<T>(products, grad_B + first * GROUP);
    }
    for (int64_t j = 0; j < J; ++j) grad[n + j] = g[j], grad_A[n + j] = through_A[j];
}

// Calls f(constant J, n) for all states, GROUP at a time and then for the rest.
template <int64_t J>
struct Constant {
    static constexpr int64_t value = J;
};

template <class F>
INLINE void for_state_groups(int64_t states, F f) {
    int64_t n = 0;
    for (; n + GROUP <= states; n += GROUP) f(Constant<GROUP>{}, n);
    if (states - n == 3) f(Constant<3>{}, n);
    if (states - n == 2) f(Constant<2>{}, n);
    if (states - n == 1) f(Constant<1>{}, n);
}

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// The checkpoint of the chunk that starts at token `first`, (states, channels), from the span's first channel on.
template <class T>
INLINE T* checkpoint(const ScanProblem& p, const Span& span, int64_t first) {
    const int64_t chunks = (p.length + CHUNK - 1) / CHUNK, chunk = span.batch * chunks + first / CHUNK;
    return static_cast<T*>(p.checkpoints) + chunk * p.states * p.channels + span.block * LANES<T>;
}

template <class T>
void forward(const ScanProblem& p, const Span& span, void* state, void* dt_sum, void* workspace) {
    using V = Vec<T>;
    Workspace<T>& w = *static_cast<Workspace<T>*>(workspace);
    const int64_t N = p.states, channel = span.block * LANES<T>, valid = smaller(LANES<T>, p.channels - channel);
    V* h = static_cast<V*>(state);
    read_parameters(p, span, valid, w);

    for (int64_t first = span.first; first < span.last; first += CHUNK) {
        const int64_t count = smaller(CHUNK, span.last - first);
        if (span.emit && p.checkpoints)
            for (int64_t n = 0; n < N; ++n) {
                T* saved = checkpoint<T>(p, span, first) + n * p.channels;
                p.resume ? void(h[n] = load(saved, valid)) : store(saved, h[n], valid);
            }
        read_tokens<T, false>(p, span, first, count, valid, static_cast<V*>(dt_sum), w);
        prefetch_tile<T>(p, span, first + CHUNK, false);
        if (!span.emit) {
            for_state_groups(
                N, [&](auto J, int64_t n) { advance<T, J.value, false>(w, n, p, span.batch, first, count, h); });
            continue;
        }
        for (int64_t t = 0; t < count; ++t) w.y[t] = w.u[t] * w.D;
        for_state_groups(
            N, [&](auto J, int64_t n) { advance<T, J.value, true>(w, n, p, span.batch, first, count, h); });
        for (int64_t t = 0; t < count; ++t) {
            V y = w.y[t];
            if (p.z.data) {
                const V z = load(row<T>(p.z, span.batch, first + t) + channel, valid);
                y *= z * sigmoid(z);
            }
            store(static_cast<T*>(p.y) + (span.batch * p.length + first + t) * p.channels + channel, y, valid);
        }
    }
}

// Writes a tile's gradients of u, delta and z and adds its share of those of D and delta_bias.
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

template <class T>
void backward(const ScanProblem& p, const Span& span, void* grad_state, void* dt_sum, const GradientSums& sums,
              void* workspace) {
    using V = Vec<T>;
    Workspace<T>& w = *static_cast<Workspace<T>*>(workspace);
    const int64_t N = p.states, channel = span.block * LANES<T>, valid = smaller(LANES<T>, p.channels - channel);
    V* g = static_cast<V*>(grad_state);
    V* totals = static_cast<V*>(sums.sums);
    V* h = w.h(N);
    read_parameters(p, span, valid, w);
    if (span.emit)
        for (int64_t n = 0; n < N + 2; ++n) totals[n] = V{};

    for (int64_t first = (span.last - 1) / CHUNK * CHUNK; first >= span.first; first -= CHUNK) {
        const int64_t count = smaller(CHUNK, span.last - first);
        read_tokens<T, true>(p, span, first, count, valid, static_cast<V*>(dt_sum), w);
        if (first > span.first) prefetch_tile<T>(p, span, first - CHUNK, true);
        read_matrix(p.C, span.batch, first, count, N, w.matrix(1, N));
        for (int64_t t = 0; t < count; ++t) {
            w.grad_y[t] = load(row<T>(p.grad_y, span.batch, first + t) + channel, valid);
            if (p.z.data) {
                const V z = load(row<T>(p.z, span.batch, first + t) + channel, valid);
                w.grad_y[t] *= z * sigmoid(z);
            }
        }
        if (!span.emit) {
            for_state_groups(N, [&](auto J, int64_t n) { retreat<T, J.value>(w, n, count, N, g); });
            continue;
        }
        read_matrix(p.B, span.batch, first, count, N, w.matrix(0, N));
        for (int64_t n = 0; n < N; ++n) h[n] = load(checkpoint<T>(p, span, first) + n * p.channels, valid);
        for (int64_t t = 0; t < CHUNK; ++t) w.grad_x[t] = w.grad_dt[t] = V{}, w.y[t] = w.u[t] * w.D;
        for_state_groups(N, [&](auto J, int64_t n) {
            differentiate<T, J.value>(w, n, count, N, p.z.data != nullptr, h, g, totals);
        });
        write_matrix(w.matrix(2, N), first, count, N, sums.add, static_cast<T*>(sums.grad_B));
        write_matrix(w.matrix(3, N), first, count, N, sums.add, static_cast<T*>(sums.grad_C));
        write_token_gradients(p, span, first, count, valid, w, totals[N], totals[N + 1]);
    }
}

template <Vec<float> (*function)(Vec<float>)>
void apply(const float* in, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES<float>) store(out + i, function(load(in + i, LANES<float>)), LANES<float>);
}

template <class T>
constexpr Kernels KERNELS = {LANES<T>, workspace_bytes<T>, forward<T>, backward<T>};

}  // namespace
