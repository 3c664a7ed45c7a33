// Maps between the network's layers. They take their memory from a pool that outlives a pass: fresh memory, which the
// system has to clear, would take a tenth of it.
#pragma once

#include <vector>

#include "volume.hpp"

class Pool;

struct Return {
    Pool* pool;
    int64_t count;
    void operator()(float* values) const;
};

// Channels-last, (*size, channels); uninitialised.
struct Map {
    Size size{};
    int64_t channels = 0;
    std::unique_ptr<float, Return> values{nullptr, Return{nullptr, 0}};

    float* data() const { return values.get(); }
};

// Of one thread. The maps must not outlive it.
class Pool {
public:
    Map map(const Size& size, int64_t channels);

private:
    friend struct Return;
    struct Range {
        int64_t first, count;
        int64_t last() const { return first + count; }
    };
    // What one map needed, first as a whole, later in parts.
    struct Chunk {
        int64_t count;
        Buffer<float> memory;
        std::vector<Range> spare;  // that no map has, in their order, none next to another
        size_t maps;
    };
    void take_back(float* values, int64_t count);

    std::vector<Chunk> chunks;
};

inline void Return::operator()(float* values) const { pool->take_back(values, count); }
