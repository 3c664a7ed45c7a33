// The one place that throws and catches: a build without exceptions ends the process instead.
#pragma once

#include <atomic>
#include <cstdlib>
#include <exception>
#include <new>

[[noreturn]] inline void out_of_memory() {
#if defined(__cpp_exceptions)
    throw std::bad_alloc();
#else
    std::abort();
#endif
}

// Runs f() and returns 0, or 1 if it runs out of memory, or asks the standard library for more than can be: nothing is
// thrown through a C interface.
template <class F>
int status_of(F f) {
#if defined(__cpp_exceptions)
    try {
        f();
    } catch (const std::exception&) {
        return 1;
    }
#else
    f();
#endif
    return 0;
}

// Carries the first exception of several threads to the one that waits for them.
class FirstError {
public:
    // Runs f(); if it throws, runs cleanup().
    template <class F, class Cleanup>
    void capture(F f, Cleanup cleanup) {
#if defined(__cpp_exceptions)
        try {
            f();
        } catch (...) {
            if (!taken.test_and_set()) error = std::current_exception();
            cleanup();
        }
#else
        f();
#endif
    }
    // When all threads are done.
    void rethrow() const {
#if defined(__cpp_exceptions)
        if (error) std::rethrow_exception(error);
#endif
    }

#if defined(__cpp_exceptions)
private:
    std::atomic_flag taken = ATOMIC_FLAG_INIT;
    std::exception_ptr error;
#endif
};
