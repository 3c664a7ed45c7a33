// Memory for buffers, and the floating-point mode in which kernels run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "errors.hpp"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

constexpr std::align_val_t CACHE_LINE{64};

struct Free {
    void operator()(void* memory) const { ::operator delete(memory, CACHE_LINE); }
};
using Memory = std::unique_ptr<unsigned char, Free>;

// Asks for huge pages where the system has them: faulting in fresh memory page by page takes longer than filling it.
inline void use_huge_pages([[maybe_unused]] const void* memory, [[maybe_unused]] size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = 1 << 21;
    const uintptr_t address = reinterpret_cast<uintptr_t>(memory);
    const uintptr_t first = (address + page - 1) / page * page, last = (address + bytes) / page * page;
    if (memory && first < last) madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

inline Memory allocate(size_t bytes) {
    void* memory = ::operator new(std::max<size_t>(bytes, 64), CACHE_LINE, std::nothrow);
    if (!memory) out_of_memory();
    use_huge_pages(memory, bytes);
    return Memory(static_cast<unsigned char*>(memory));
}

// Treats denormal floats as zero in this thread for the object's lifetime. A decaying state would otherwise be denormal
// for many tokens, each of which takes some processors a hundred times as long.
template <class T>
class DenormalsAreZero {
#if defined(__x86_64__)
    const unsigned mode = _mm_getcsr();

public:
    DenormalsAreZero() { _mm_setcsr(mode | 0x8040); }
    ~DenormalsAreZero() { _mm_setcsr(mode); }
#elif defined(__aarch64__)
    uint64_t mode;

public:
    DenormalsAreZero() {
        __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
        __asm__ volatile("msr fpcr, %0" : : "r"(mode | uint64_t(1) << 24));
    }
    ~DenormalsAreZero() { __asm__ volatile("msr fpcr, %0" : : "r"(mode)); }
#endif
};
template <>
class DenormalsAreZero<double> {};

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
