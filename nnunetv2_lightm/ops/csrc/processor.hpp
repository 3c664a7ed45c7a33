// What this x86-64 processor, and the system on it, can run. Asked of the processor itself: __builtin_cpu_supports()
// needs a run-time library that answers, and Zig's says no to everything.
#pragma once

#if defined(__x86_64__)

#include <cpuid.h>

struct Processor {
    bool avx2 = false, avx512 = false;  // with FMA; with FMA, F and DQ

    Processor() {
        unsigned a, b, c, d;
        if (!__get_cpuid(1, &a, &b, &c, &d)) return;
        const bool fma = c >> 12 & 1, saved = c >> 27 & 1;
        if (!fma || !saved || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return;
        // The registers that the system saves when it switches threads.
        unsigned registers, high;
        __asm__("xgetbv" : "=a"(registers), "=d"(high) : "c"(0));
        constexpr unsigned AVX = 0x6, AVX512 = 0xe6;
        avx2 = (registers & AVX) == AVX && (b >> 5 & 1);
#if defined(__APPLE__)
        const bool wide = avx2;  // macOS begins to save these when a thread first uses them
#else
        const bool wide = (registers & AVX512) == AVX512;
#endif
        avx512 = wide && (b >> 16 & 1) && (b >> 17 & 1);
    }
};

#endif
