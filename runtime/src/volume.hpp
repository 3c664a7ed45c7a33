// Small vocabulary of the engine: sizes of volumes and memory for them.
#pragma once

#include <array>
#include <cstdint>

#include "memory.hpp"  // of the kernels: aligned memory

using Size = std::array<int64_t, 3>;
using Spacing = std::array<double, 3>;

inline int64_t voxels(const Size& size) { return size[0] * size[1] * size[2]; }

// Uninitialised floats (or doubles).
template <class T>
class Buffer {
public:
    Buffer() = default;
    explicit Buffer(int64_t count) : memory(allocate(bytes_of(count))) {}
    T* data() const { return reinterpret_cast<T*>(memory.get()); }
    T& operator[](int64_t i) const { return data()[i]; }
    explicit operator bool() const { return memory != nullptr; }

private:
    // In WebAssembly size_t has 32 bits, and a count that does not fit would ask for too little.
    static size_t bytes_of(int64_t count) {
        if (count < 0 || uint64_t(count) > SIZE_MAX / sizeof(T)) out_of_memory();
        return size_t(count) * sizeof(T);
    }

    Memory memory;
};
