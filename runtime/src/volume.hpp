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
    explicit Buffer(int64_t count) : memory(allocate(size_t(count) * sizeof(T))) {}
    T* data() const { return reinterpret_cast<T*>(memory.get()); }
    T& operator[](int64_t i) const { return data()[i]; }
    explicit operator bool() const { return memory != nullptr; }

private:
    Memory memory;
};
