// Buffers, and weights packed in the layout that the kernels read.
#pragma once

#include <cstring>
#include <vector>

#include "memory.hpp"
#include "products.hpp"

// One block of memory for several arrays, each aligned to a cache line.
class Arena {
public:
    template <class T>
    void reserve(T*& array, int64_t count) {
        array = nullptr;
        requests.push_back({&array, bytes});
        bytes += ceil_div(count * sizeof(T), 64) * 64;
    }
    template <class T>
    void reserve(Weights<T>& weights, int64_t columns, int64_t depth, int64_t lanes) {
        weights.columns = columns, weights.depth = depth;
        reserve(weights.panels, ceil_div(columns, 2 * lanes) * depth * 2 * lanes);
    }
    void allocate_all() {
        memory = allocate(bytes);
        for (const Request& request : requests) {
            const void* address = memory.get() + request.offset;
            std::memcpy(request.array, &address, sizeof address);
        }
    }

private:
    struct Request {
        void* array;
        int64_t offset;
    };
    std::vector<Request> requests;
    int64_t bytes = 0;
    Memory memory;
};

// Packs weights: element (depth d, column j) is from[column_of(j) * column_stride + d * depth_stride].
template <class T, class F>
void pack(const Weights<T>& weights, int64_t lanes, const T* from, int64_t depth_stride, int64_t column_stride,
          F column_of) {
    T* to = const_cast<T*>(weights.panels);
    for (int64_t first = 0; first < weights.columns; first += 2 * lanes)
        for (int64_t d = 0; d < weights.depth; ++d)
            for (int64_t j = first; j < first + 2 * lanes; ++j)
                *to++ = j < weights.columns ? from[column_of(j) * column_stride + d * depth_stride] : T(0);
}

template <class T>
void pack(const Weights<T>& weights, int64_t lanes, const T* from, int64_t depth_stride, int64_t column_stride) {
    pack(weights, lanes, from, depth_stride, column_stride, [](int64_t column) { return column; });
}
