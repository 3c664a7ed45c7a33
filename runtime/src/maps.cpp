#include "maps.hpp"

#include <algorithm>
#include <functional>

namespace {

constexpr int64_t LINE = 16;  // floats of a cache line, at which ranges begin

}  // namespace

Map Pool::map(const Size& size, int64_t channels) {
    const int64_t count = ceil_div(voxels(size) * channels, LINE) * LINE;
    const auto fits = [&](const Range& range) { return range.count >= count; };
    const auto has_room = [&](const Chunk& c) { return std::any_of(c.spare.begin(), c.spare.end(), fits); };
    auto chunk = std::find_if(chunks.begin(), chunks.end(), has_room);
    if (chunk == chunks.end()) {
        chunks.push_back({count, Buffer<float>(count), {{0, count}}, 0});
        chunk = std::prev(chunks.end());
    }
    chunk->spare.reserve(++chunk->maps + 1);  // so that a map's end needs no memory
    const auto range = std::find_if(chunk->spare.begin(), chunk->spare.end(), fits);
    float* const values = chunk->memory.data() + range->first;
    *range = {range->first + count, range->count - count};
    if (range->count == 0) chunk->spare.erase(range);
    return Map{size, channels, {values, Return{this, count}}};
}

void Pool::take_back(float* values, int64_t count) {
    const std::less_equal<const float*> up_to;
    const auto chunk = std::find_if(chunks.begin(), chunks.end(), [&](const Chunk& c) {
        return up_to(c.memory.data(), values) && up_to(values + count, c.memory.data() + c.count);
    });
    --chunk->maps;
    std::vector<Range>& spare = chunk->spare;
    const int64_t first = values - chunk->memory.data();
    const auto next = std::find_if(spare.begin(), spare.end(), [&](const Range& range) { return range.first > first; });
    const auto range = spare.insert(next, {first, count});
    if (std::next(range) != spare.end() && range->last() == std::next(range)->first) {
        range->count += std::next(range)->count;
        spare.erase(std::next(range));
    }
    if (range != spare.begin() && std::prev(range)->last() == range->first) {
        std::prev(range)->count += range->count;
        spare.erase(range);
    }
}
