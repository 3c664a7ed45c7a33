// IEEE half precision by hand: no compiler flag is needed, and WebAssembly has no such type.
#pragma once

#include <cstdint>
#include <cstring>

inline float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, exponent = half >> 10 & 0x1f, fraction = half & 0x3ff;
    uint32_t bits;
    if (exponent == 0x1f) {
        bits = sign | 0x7f800000 | fraction << 13;  // infinity, NaN
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else {
        const float value = float(fraction) * 0x1p-24f;  // zero, denormal
        std::memcpy(&bits, &value, sizeof bits);
        bits |= sign;
    }
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// The half nearest to a number in [0, 65504], ties to even, as a float: what torch stores of it in float16.
inline float rounded_to_half(double value) {
    if (value < 0x1p-24 * 0.5) return 0.0f;  // at exactly half the smallest denormal the tie goes to 0, below
    int exponent = 0;
    for (double scaled = value; scaled >= 2.0; scaled *= 0.5) ++exponent;
    for (double scaled = value; scaled < 1.0 && exponent > -14; scaled *= 2.0) --exponent;
    double unit = 0x1p-10;
    for (int i = 0; i < exponent; ++i) unit *= 2.0;
    for (int i = 0; i > exponent; --i) unit *= 0.5;
    const double units = value / unit;
    int64_t whole = int64_t(units);
    const double rest = units - double(whole);
    if (rest > 0.5 || (rest == 0.5 && whole % 2 == 1)) ++whole;
    return float(double(whole) * unit);
}
