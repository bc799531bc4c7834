// Activation, scale and shift, rounded to bytes for a convolution in 8 bits.
#pragma once

#include "bias_act.h"

namespace disco_fast::DISCO_FAST_ISA {

// So large a number has no bits behind the point: adding it rounds, halves to even, and leaves what
// was added in the last bits.
constexpr float kRounds = 0x1.8p23f;

template <class T, int L>
inline Vector<float, L> widened(const T* from) {
  Vector<float, L> value;
  for (int i = 0; i < L; ++i) value[i] = widen(from[i]);
  return value;
}
template <>
inline Vector<float, kLanes<float>> widened<float, kLanes<float>>(const float* from) {
  return load<kLanes<float>>(from);
}
template <>
inline Vector<float, kLanes<float>> widened<BFloat16, kLanes<float>>(const BFloat16* from) {
  constexpr int L = kLanes<float>;
  const auto half = load<L>(reinterpret_cast<const uint16_t*>(from));
  const Vector<uint32_t, L> bits = __builtin_convertvector(half, Vector<uint32_t, L>) << 16;
  return Vector<float, L>(bits);
}

// Channels c to c + L - 1. NaN becomes 0.
template <class T, int L>
inline void quantize_some(const QuantizeArgs& a, const T* x, int64_t c, uint8_t* out) {
  typedef Vector<float, L> V;
  V value = widened<T, L>(x + c);
  const V low = a.slope == 0 ? V{} : value * float(a.slope);  // so that minus infinity becomes 0
  value = value < 0 ? low : value;
  value = value * load<L>(a.scale + c) + load<L>(a.shift + c);
  value = value > 0 ? value : V{};
  value = value < 255 ? value : V{} + 255;
  const V rounded = value + kRounds;
  store<L>(out + c, __builtin_convertvector(Vector<uint32_t, L>(rounded), Vector<uint8_t, L>));
}

template <class T>
inline void quantize_pixel(const QuantizeArgs& a, const T* x, uint8_t* out) {
  constexpr int L = kLanes<float>;
  int64_t c = 0;
  for (; c + L <= a.channels; c += L) quantize_some<T, L>(a, x, c, out);
  for (; c < a.channels; ++c) {
    const float value = activate(float(widen(x[c])), float(a.slope)) * a.scale[c] + a.shift[c];
    const float positive = value > 0 ? value : 0.0f;
    out[c] = uint8_t(float_to_bits((positive < 255 ? positive : 255.0f) + kRounds));
  }
}

// Items: rows of the padded result.
template <class T>
inline void quantize_rows_of(const QuantizeArgs& a, int64_t begin, int64_t end) {
  const int64_t height = a.rows + 2 * a.padding, width = (a.columns + 2 * a.padding) * a.channels;
  const int64_t side = a.padding * a.channels, values = a.columns * a.channels;
  for (int64_t item = begin; item < end; ++item) {
    uint8_t* out = static_cast<uint8_t*>(a.out) + item * width;
    const int64_t row = item % height - a.padding;
    if (row < 0 || row >= a.rows) {
      std::memset(out, a.zero, width);
      continue;
    }
    std::memset(out, a.zero, side);
    const T* x = static_cast<const T*>(a.x) + (item / height * a.rows + row) * values;
    for (int64_t i = 0; i < values; i += a.channels) {
      quantize_pixel(a, x + i, out + side + i);
    }
    std::memset(out + side + values, a.zero, side);
  }
}

inline void quantize_rows(const QuantizeArgs& a, int64_t begin, int64_t end) {
  with_element(a.element, [&](auto t) { quantize_rows_of<decltype(t)>(a, begin, end); });
}

}  // namespace disco_fast::DISCO_FAST_ISA
