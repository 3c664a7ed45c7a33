// A compiled library, loaded as users have it.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

[[noreturn]] inline void fail(const std::string& message) {
    std::fprintf(stderr, "harness: %s\n", message.c_str());
    std::exit(2);
}

inline void* open_library(const char* path) {
#if defined(_WIN32)
    void* library = reinterpret_cast<void*>(LoadLibraryA(path));
    if (!library) fail(std::string(path) + " does not load: error " + std::to_string(GetLastError()));
#else
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) fail(dlerror());
#endif
    return library;
}

inline void* function(void* library, const std::string& name) {
#if defined(_WIN32)
    void* found = reinterpret_cast<void*>(GetProcAddress(reinterpret_cast<HMODULE>(library), name.c_str()));
#else
    void* found = dlsym(library, name.c_str());
#endif
    if (!found) fail("the library has no function " + name);
    return found;
}
