// Stands in for the CUDA header of this name: 16-bit floats as storage.
#pragma once

#include <bit>
#include <cstdint>

struct alignas(2) __half {
  uint16_t bits;
};

inline float __half2float(__half half) {
  const uint32_t sign = uint32_t(half.bits & 0x8000) << 16, magnitude = half.bits & 0x7fff;
  if (magnitude > 0x7c00) return std::bit_cast<float>(0x7fffffffu);  // CUDA has one NaN.
  if (magnitude == 0x7c00) return std::bit_cast<float>(sign | 0x7f800000);
  if (magnitude < 0x0400) {  // Subnormal: a multiple of 2^-24.
    const float value = float(magnitude) * 0x1p-24f;
    return sign ? -value : value;
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (uint32_t(127 - 15) << 23)));
}

// To the nearest, ties to even.
inline __half __float2half_rn(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7fffffff;
  const uint16_t sign = uint16_t(bits >> 16 & 0x8000);
  if (magnitude > 0x7f800000) return __half{0x7fff};
  if (magnitude >= 0x477ff000) return __half{uint16_t(sign | 0x7c00)};  // From 65520 on.
  if (magnitude < 0x38800000) {
    // Subnormal, below 2^-14. A float in 0.5..1 is a multiple of 2^-24 as well: so the sum rounds.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return __half{uint16_t(sign | (std::bit_cast<uint32_t>(sum) - 0x3f000000))};
  }
  const uint32_t rebiased = magnitude - (uint32_t(127 - 15) << 23);
  return __half{uint16_t(sign | ((rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13))};
}

// Two, the first in the lower bits.
struct alignas(4) __half2 {
  __half x, y;
};

inline __half2 __floats2half2_rn(float x, float y) {
  return __half2{__float2half_rn(x), __float2half_rn(y)};
}
