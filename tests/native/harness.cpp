// Repeats the calls that cases.py recorded, on every instruction set of this processor and on several numbers of
// threads, through the C interface of a library as users have it:
//
//     harness LIBRARY CASES
//
// Exit code: 0 if all outputs agree, 1 if one does not, 2 if a file cannot be read.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "library.hpp"

namespace {

// The file's contents, read from front to back.
class Reader {
public:
    explicit Reader(const char* path) {
        std::ifstream file(path, std::ios::binary);
        if (!file) fail(std::string("cannot read ") + path);
        content.assign(std::istreambuf_iterator<char>(file), {});
    }
    int64_t number() {
        int64_t value;
        std::memcpy(&value, take(sizeof value), sizeof value);
        return value;
    }
    std::string bytes() {
        const int64_t count = number();
        return std::string(take(count), count);
    }

private:
    const char* take(int64_t count) {
        if (count < 0 || at + count > int64_t(content.size())) fail("the cases end too early");
        at += count;
        return content.data() + at - count;
    }
    std::vector<char> content;
    int64_t at = 0;
};

struct Pointer {
    int64_t offset, is_output, element;
    std::string content;
};

// Largest error, relative to the largest expected value; infinity where a NaN is not expected, or not there.
template <class T>
double error_of(const std::vector<unsigned char>& got, const std::string& expected) {
    double error = 0, largest = 0;
    for (size_t i = 0; i < expected.size(); i += sizeof(T)) {
        T a, b;
        std::memcpy(&a, got.data() + i, sizeof a);
        std::memcpy(&b, expected.data() + i, sizeof b);
        if (std::isnan(double(a)) != std::isnan(double(b))) return INFINITY;
        if (std::isnan(double(a))) continue;
        error = std::fmax(error, std::fabs(double(a) - double(b)));
        largest = std::fmax(largest, std::fabs(double(b)));
    }
    return largest > 0 ? error / largest : error;
}

struct Call {
    std::string name, symbol, structure;
    int64_t backward;
    std::vector<Pointer> pointers;
};

Call read_call(Reader& reader) {
    Call call;
    call.name = reader.bytes();
    call.symbol = reader.bytes();
    call.backward = reader.number();
    call.structure = reader.bytes();
    call.pointers.resize(reader.number());
    for (Pointer& pointer : call.pointers) {
        pointer.offset = reader.number();
        pointer.is_output = reader.number();
        pointer.element = reader.number();
        pointer.content = reader.bytes();
    }
    return call;
}

using Function = int (*)(const void*, int64_t, int64_t, int);

// Largest share of the allowed error over all outputs.
double run(const Call& call, Function function, int64_t instruction_set, int64_t threads) {
    std::string structure = call.structure;
    std::vector<std::vector<unsigned char>> buffers;
    for (const Pointer& pointer : call.pointers) {
        buffers.emplace_back(pointer.content.size());
        if (!pointer.is_output) std::memcpy(buffers.back().data(), pointer.content.data(), pointer.content.size());
        void* const address = buffers.back().data();
        std::memcpy(&structure[pointer.offset], &address, sizeof address);
    }
    if (function(structure.data(), instruction_set, threads, int(call.backward)) != 0) return INFINITY;
    double worst = 0;
    for (size_t i = 0; i < buffers.size(); ++i) {
        const Pointer& pointer = call.pointers[i];
        if (!pointer.is_output) continue;
        const double share = pointer.element == 8   ? error_of<double>(buffers[i], pointer.content) / 1e-9
                             : pointer.element == 4 ? error_of<float>(buffers[i], pointer.content) / 1e-4
                             : std::memcmp(buffers[i].data(), pointer.content.data(), buffers[i].size()) ? INFINITY
                                                                                                         : 0;
        worst = std::fmax(worst, share);
    }
    return worst;
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 3) fail("harness LIBRARY CASES");
    void* const library = open_library(arguments[1]);
    const auto name_of =
        reinterpret_cast<const char* (*)(int64_t)>(function(library, "nnunetv2_lightm_instruction_set"));
    Reader reader(arguments[2]);
    int64_t passed = 0, failed = 0;
    for (int64_t calls = reader.number(); calls > 0; --calls) {
        const Call call = read_call(reader);
        const auto run_it = reinterpret_cast<Function>(function(library, call.symbol));
        for (int64_t set = 0; name_of(set); ++set)
            for (const int64_t threads : {1, 3}) {
                const double share = run(call, run_it, set, threads);
                share <= 1 ? ++passed : ++failed;
                if (share <= 1) continue;
                std::printf("FAILED: %s, %s, %d threads: %.3g times the allowed error\n", call.name.c_str(),
                            name_of(set), int(threads), share);
            }
    }
    std::printf("instruction sets:");
    for (int64_t set = 0; name_of(set); ++set) std::printf(" %s", name_of(set));
    std::printf("\n%d passed, %d failed\n", int(passed), int(failed));
    return failed || !passed ? 1 : 0;
}
