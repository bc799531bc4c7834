// What the superpixel kernels share: element types, the cell's neighborhood, a cell's packed
// association.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "../cell_grid.h"
#include "kernels.h"
#include "vector.h"
#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace disco_fast::DISCO_FAST_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class T>
struct WideOf {
  typedef T type;
};
template <>
struct WideOf<BFloat16> {
  typedef float type;
};
template <>
struct WideOf<Float16> {
  typedef float type;
};
template <class T>
using Wide = typename WideOf<T>::type;
template <class T>
constexpr bool kIsWide = sizeof(T) >= 4;

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline float widen(float value) { return value; }
inline double widen(double value) { return value; }
inline float widen(BFloat16 value) { return bits_to_float(uint32_t(value.bits) << 16); }
inline float widen(Float16 value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t sign = uint32_t(value.bits & 0x8000) << 16, magnitude = value.bits & 0x7fff;
  if (magnitude >= 0x7c00) return bits_to_float(sign | 0x7f800000 | (magnitude & 0x3ff) << 13);
  if (magnitude >= 0x0400) return bits_to_float(sign | ((magnitude << 13) + (112u << 23)));
  const float small = float(magnitude) * 0x1p-24f;  // subnormal half
  return sign ? -small : small;
#endif
}

template <class T>
inline T narrow(Wide<T> value) {
  return value;
}
template <>
inline BFloat16 narrow<BFloat16>(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return {uint16_t(bits >> 16 | 0x40)};  // NaN stays NaN
  return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};                 // to nearest even
}
template <>
inline Float16 narrow<Float16>(float value) {
#if defined(__F16C__)
  return {uint16_t(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#else
  const uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return {uint16_t(sign | 0x7e00)};
  if (magnitude >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // rounds to infinity
  if (magnitude < 0x38800000) {  // subnormal half: adding 0.5 rounds at the right bit
    return {uint16_t(sign | (float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000))};
  }
  return {uint16_t(sign | ((magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13))};
#endif
}

// A trained association map is full of denormals, which some processors handle a hundred times
// slower than other numbers. They are far below any tolerance here, so they count as zero while a
// kernel runs.
class FlushDenormals {
 public:
#if defined(__SSE2__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | 1u << 24));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }

 private:
  uint64_t saved_;
#endif
};

// Uninitialized memory of one call. Not std::vector: inline functions of the standard library must
// not be compiled for this instruction set and then shared (see kernels.cmake).
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : data_(static_cast<T*>(std::malloc(sizeof(T) * size_t(count)))) {
    if (data_ == nullptr) std::abort();
  }
  ~Scratch() { std::free(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator T*() const { return data_; }

 private:
  T* data_;
};

// Copies the cell's association to weights[9][S * S]. Candidates outside the grid get 0, whatever
// they hold.
template <class T>
inline void pack_association(const View& association, const Grid& grid, const Cell& cell,
                             Wide<T>* weights) {
  const int64_t s = grid.cell;
  const T* corner = cell_corner<const T>(association, grid, cell);
  for (int slot = 0; slot < 9; ++slot) {
    Wide<T>* to = weights + slot * s * s;
    if (neighbor(grid, cell.row, cell.column, slot) < 0) {
      for (int64_t i = 0; i < s * s; ++i) to[i] = 0;
      continue;
    }
    for (int64_t y = 0; y < s; ++y) {
      const T* from = corner + slot * association.channel + y * association.row;
      for (int64_t x = 0; x < s; ++x) to[y * s + x] = widen(from[x * association.column]);
    }
  }
}

// The 9 candidate tokens of a cell as tokens[9][C]; zero outside the grid.
template <class W>
inline void pack_tokens(const View& tokens, const Grid& grid, const Cell& cell, int64_t channels,
                        W* packed) {
  for (int slot = 0; slot < 9; ++slot) {
    const int64_t other = neighbor(grid, cell.row, cell.column, slot);
    W* to = packed + slot * channels;
    for (int64_t c = 0; c < channels; ++c) {
      to[c] = other < 0
                  ? 0
                  : *at<const W>(tokens, cell.image, c, other / grid.columns, other % grid.columns);
    }
  }
}

template <int L>
struct Lanes {
  static constexpr int value = L;
};

// Largest vector that divides a row of the cell.
template <class W, class Body>
inline void with_row_lanes(int64_t cell, const Body& body) {
  constexpr int L = kLanes<W>;
  if (cell % L == 0) {
    body(Lanes<L>{});
  } else if (L > 8 && cell % 8 == 0) {
    body(Lanes<(L > 8 ? 8 : 1)>{});
  } else {
    body(Lanes<1>{});
  }
}

template <class Body>
inline void with_element(Element element, const Body& body) {
  switch (element) {
    case Element::kFloat32:
      return body(float{});
    case Element::kFloat64:
      return body(double{});
    case Element::kBFloat16:
      return body(BFloat16{});
    case Element::kFloat16:
      return body(Float16{});
  }
}

template <class Body>
inline void with_wide_element(Element element, const Body& body) {
  element == Element::kFloat64 ? body(double{}) : body(float{});
}

}  // namespace disco_fast::DISCO_FAST_ISA
