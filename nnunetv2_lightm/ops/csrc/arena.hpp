// Buffers and weights in the layout that the kernels want.
#pragma once

#include <cstring>
#include <vector>

#include "memory.hpp"
#include "products.hpp"

// One block of memory for arrays, each on its own cache lines.
class Arena {
public:
    template <class T>
    void reserve(T*& array, int64_t count) {
        array = nullptr;
        requests.push_back({&array, bytes});
        bytes += divided_up(count * sizeof(T), 64) * 64;
    }
    template <class T>
    void reserve(Weights<T>& weights, int64_t columns, int64_t depth, int64_t lanes) {
        weights.columns = columns, weights.depth = depth;
        reserve(weights.panels, divided_up(columns, 2 * lanes) * depth * 2 * lanes);
    }
    void allocate_all() {
        memory = allocate(bytes);
        for (const Request& request : requests) {
            const void* place = memory.get() + request.offset;
            std::memcpy(request.array, &place, sizeof place);
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

// Fills weights, whose element (depth d, column j) is from[column_of(j) * column_stride + d * depth_stride].
template <class T, class F>
void lay_out(const Weights<T>& weights, int64_t lanes, const T* from, int64_t depth_stride, int64_t column_stride,
             F column_of) {
    T* to = const_cast<T*>(weights.panels);
    for (int64_t first = 0; first < weights.columns; first += 2 * lanes)
        for (int64_t d = 0; d < weights.depth; ++d)
            for (int64_t j = first; j < first + 2 * lanes; ++j)
                *to++ = j < weights.columns ? from[column_of(j) * column_stride + d * depth_stride] : T(0);
}

template <class T>
void lay_out(const Weights<T>& weights, int64_t lanes, const T* from, int64_t depth_stride, int64_t column_stride) {
    lay_out(weights, lanes, from, depth_stride, column_stride, [](int64_t column) { return column; });
}
