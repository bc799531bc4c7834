// Activation, scale and shift, rounded to bytes for a convolution in 8 bits.
#pragma once

#include "bias_act.h"

namespace disco_fast::DISCO_FAST_ISA {

// So large a number has no bits behind the point: adding it rounds, halves to even, and leaves what
// was added in the last bits.
constexpr float kRounds = 0x1.8p23f;

// NaN becomes 0.
template <class T>
inline void quantize_some(const T* __restrict x, int64_t count, float slope,
                          const float* __restrict scale, const float* __restrict shift,
                          uint8_t* __restrict out) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = activate(float(widen(x[i])), slope) * scale[i] + shift[i];
    const float positive = value > 0 ? value : 0.0f;
    out[i] = uint8_t(float_to_bits((positive < 255 ? positive : 255.0f) + kRounds));
  }
}

// Items: rows of the padded result.
template <class T>
inline void quantize_rows_of(const QuantizeArgs& a, int64_t begin, int64_t end) {
  const int64_t height = a.rows + 2 * a.padding, width = (a.columns + 2 * a.padding) * a.channels;
  const int64_t side = a.padding * a.channels, values = a.columns * a.channels;
  const int64_t most = repeated(a.channels);
  const Scratch<float> scale(most), shift(most);
  for (int64_t i = 0; i < most; ++i) {
    scale[i] = a.scale[i % a.channels];
    shift[i] = a.shift[i % a.channels];
  }
  for (int64_t item = begin; item < end; ++item) {
    uint8_t* out = static_cast<uint8_t*>(a.out) + item * width;
    const int64_t row = item % height - a.padding;
    if (row < 0 || row >= a.rows) {
      std::memset(out, a.zero, width);
      continue;
    }
    std::memset(out, a.zero, side);
    const T* x = static_cast<const T*>(a.x) + (item / height * a.rows + row) * values;
    for (int64_t i = 0; i < values; i += most) {
      quantize_some(x + i, values - i < most ? values - i : most, float(a.slope), scale, shift,
                    out + side + i);
    }
    std::memset(out + side + values, a.zero, side);
  }
}

inline void quantize_rows(const QuantizeArgs& a, int64_t begin, int64_t end) {
  with_element(a.element, [&](auto t) { quantize_rows_of<decltype(t)>(a, begin, end); });
}

}  // namespace disco_fast::DISCO_FAST_ISA
