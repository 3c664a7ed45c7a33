// The selective scan of one block of channels, one channel per vector lane, forward and backward.
//
// h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t;  y_t = (C_t h_t + D u_t) SiLU(z_t);  dt = softplus(delta + delta_bias)
//
// Work proceeds in tiles of CHUNK tokens. First comes what depends on token and channel alone; then up to four states
// at a time run through the tile in registers; then the tile's results are written.
#pragma once

#include "scan_tiles.hpp"

namespace {

// Where registers are few, exp's constants need them all: a tile's decays are then computed before its states.
constexpr bool DECAYS_FIRST = VECTOR_BYTES < 64;

// Runs states n ... n + J - 1 through the tile whose rows of B and C begin at token `first`; with `emit`, adds their
// contribution to y.
template <class T, int64_t J, bool emit>
INLINE void advance_state(Workspace<T>& w, int64_t n, const ScanProblem& p, int64_t batch, int64_t first, int64_t count,
                          Vec<T>* h) {
    Vec<T> A[J], state[J];
    for (int64_t j = 0; j < J; ++j) A[j] = w.scaled_A(p.states)[n + j], state[j] = h[n + j];
    const T* B = row<T>(p.B, batch, first) + n;
    const T* C = emit ? row<T>(p.C, batch, first) + n : nullptr;
    const auto decay = [&](int64_t t, int64_t j) { return scaled_exp(w.dt[t] * A[j]); };
    for (int64_t t = 0; DECAYS_FIRST && t < count; ++t)
        for (int64_t j = 0; j < J; ++j) w.decay[t][j] = decay(t, j);
    for (int64_t t = 0; t < count; ++t, B += p.B.token_stride, C += emit ? p.C.token_stride : 0) {
        const Vec<T> x = w.x[t];
        Vec<T> y = w.y[t];
        for (int64_t j = 0; j < J; ++j) {
            state[j] = (DECAYS_FIRST ? w.decay[t][j] : decay(t, j)) * state[j] + x * B[j];
            if (emit) y += state[j] * C[j];
        }
        if (emit) w.y[t] = y;
    }
    for (int64_t j = 0; j < J; ++j) h[n + j] = state[j];
}

// Runs the adjoint of states n ... n + J - 1 backwards through a tile whose output gradients are in grad_y:
// g_{t-1} = exp(dt_t A) (g_t + C_t grad_y_t).
template <class T, int64_t J>
INLINE void adjoint_state(Workspace<T>& w, int64_t n, int64_t count, int64_t states, Vec<T>* grad) {
    const T* C = w.matrix(1, states) + n * CHUNK;
    Vec<T> A[J], g[J];
    for (int64_t j = 0; j < J; ++j) A[j] = w.scaled_A(states)[n + j], g[j] = grad[n + j];
    for (int64_t t = count - 1; t >= 0; --t)
        for (int64_t j = 0; j < J; ++j) g[j] = (g[j] + w.grad_y[t] * C[t * GROUP + j]) * scaled_exp(w.dt[t] * A[j]);
    for (int64_t j = 0; j < J; ++j) grad[n + j] = g[j];
}

template <class T>
INLINE void store_lane_sums(const Vec<T> (&products)[TOKENS<T> * GROUP], T* to) {
    for (int64_t i = 0; i < TOKENS<T> * GROUP; i += LANES<T>) store(to + i, lane_sums(products + i), LANES<T>);
}

// For states n ... n + J - 1: recomputes them through the tile from h, then runs their gradient `grad` back through it.
template <class T, int64_t J>
INLINE void backward_tile(Workspace<T>& w, int64_t n, int64_t count, int64_t states, bool with_y, const Vec<T>* h,
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
    // Padding takes the gradient through as it is, also where A is infinite and exp(0 A) is NaN.
    for (int64_t t = count; t % TOKENS<T>; ++t)
        for (int64_t j = 0; j < J; ++j) w.decay[t][j] = V{} + T(1), w.decayed[t][j] = V{};
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

// Calls f(constant J, n) for all states, GROUP at a time, then once for the remainder.
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

// The checkpoint of the chunk that starts at token `first`, (states, channels), at the span's first channel.
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
                N, [&](auto J, int64_t n) { advance_state<T, J.value, false>(w, n, p, span.batch, first, count, h); });
            continue;
        }
        for (int64_t t = 0; t < count; ++t) w.y[t] = w.u[t] * w.D;
        for_state_groups(
            N, [&](auto J, int64_t n) { advance_state<T, J.value, true>(w, n, p, span.batch, first, count, h); });
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
            for_state_groups(N, [&](auto J, int64_t n) { adjoint_state<T, J.value>(w, n, count, N, g); });
            continue;
        }
        read_matrix(p.B, span.batch, first, count, N, w.matrix(0, N));
        for (int64_t n = 0; n < N; ++n) h[n] = load(checkpoint<T>(p, span, first) + n * p.channels, valid);
        for (int64_t t = 0; t < CHUNK; ++t) w.grad_x[t] = w.grad_dt[t] = V{}, w.y[t] = w.u[t] * w.D;
        for_state_groups(N, [&](auto J, int64_t n) {
            backward_tile<T, J.value>(w, n, count, N, p.z.data != nullptr, h, g, totals);
        });
        write_matrix(w.matrix(2, N), first, count, N, sums.add, static_cast<T*>(sums.grad_B));
        write_matrix(w.matrix(3, N), first, count, N, sums.add, static_cast<T*>(sums.grad_C));
        write_token_gradients(p, span, first, count, valid, w, totals[N], totals[N + 1]);
    }
}

template <Vec<float> (*function)(Vec<float>)>
void apply(const float* in, float* out, int64_t count) {
    for (int64_t i = 0; i < count; i += LANES<float>)
        store(out + i, function(load(in + i, LANES<float>)), LANES<float>);
}

template <class T>
constexpr Kernels KERNELS = {LANES<T>, workspace_bytes<T>, forward<T>, backward<T>};

}  // namespace
