// sRGB to lightness, and lightness with chroma to sRGB. The powers of the sRGB curve are made of
// roots:
//   x^2.4 = x^2 * (x^0.2)^2        x^(1/2.4) = c * sqrt(sqrt(c)), c = cube root of x
// with roots by Newton's method from a guess in the exponent bits, so the loops vectorize on every
// instruction set.
#pragma once

#include "../srgb.h"
#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

constexpr int kStrip = 64;  // pixels converted together, small enough for the first-level cache

inline float root_guess(float x, uint32_t degree) {
  // Dividing the biased exponent by the degree divides the logarithm; 1 keeps its place.
  return bits_to_float(float_to_bits(x) / degree + (127u << 23) / degree * (degree - 1));
}
inline double root_guess(double x, uint32_t degree) { return double(root_guess(float(x), degree)); }

// Both for x in 0..a few; 0 gives a tiny number, not NaN. Newton doubles the digits: 5 steps reach
// double.
template <class W>
inline W cube_root(W x) {
  W y = root_guess(x, 3);
  for (int i = 0; i < (sizeof(W) == 8 ? 5 : 3); ++i) y = (2 * y + x / (y * y)) * W(1.0 / 3);
  return y;
}
template <class W>
inline W fifth_root(W x) {
  W y = root_guess(x, 5);
  for (int i = 0; i < (sizeof(W) == 8 ? 6 : 4); ++i) {
    y = (4 * y + x / (y * y * y * y)) * W(0.2);
  }
  return y;
}

inline float square_root(float x) { return __builtin_sqrtf(x); }
inline double square_root(double x) { return __builtin_sqrt(x); }

template <class W>
inline W decode_srgb(W v) {
  const W base = (v + W(0.055)) / W(1.055), root = fifth_root(base);
  return v > W(kLinearBelow) ? base * base * root * root : v / W(12.92);
}

template <class W>
inline W encode_srgb(W linear) {
  const W clamped = linear < 0 ? W(0) : (linear > 1 ? W(1) : linear);
  const W c = cube_root(clamped);
  const W curved = W(1.055) * c * square_root(square_root(c)) - W(0.055);
  return clamped > W(kSrgbLinearBelow) ? curved : W(12.92) * clamped;
}

template <class W>
inline W lightness_of(W y) {
  return y > W(kLightnessLinearBelow) ? 116 * cube_root(y) - 16 : W(903.3) * y;
}

template <class W, class In>
inline void rgb_to_l_pixels_of(const RgbToLArgs& a, int64_t begin, int64_t end) {
  W table[256];
  if constexpr (sizeof(In) == 1) {
    for (int i = 0; i < 256; ++i) table[i] = decode_srgb(W(i) / 255);
  }
  const auto linear = [&](In v) {
    if constexpr (sizeof(In) == 1) {
      return table[v];
    } else {
      return decode_srgb(v);
    }
  };
  W* out = static_cast<W*>(a.lightness);
  for (int64_t first = begin; first < end;) {
    const int64_t image = first / a.pixels, inside = first % a.pixels;
    int64_t count = end - first < kStrip ? end - first : kStrip;
    count = a.pixels - inside < count ? a.pixels - inside : count;
    const In* in = static_cast<const In*>(a.image) + image * a.channels * a.pixels + inside;
    W y[kStrip];
    if (a.channels == 1) {
      for (int64_t i = 0; i < count; ++i) y[i] = linear(in[i]);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        y[i] = W(kLumaR) * linear(in[i]) + W(kLumaG) * linear(in[a.pixels + i]) +
               W(kLumaB) * linear(in[2 * a.pixels + i]);
      }
    }
    for (int64_t i = 0; i < count; ++i) out[first + i] = lightness_of(y[i]);
    first += count;
  }
}

inline void rgb_to_l_pixels(const RgbToLArgs& a, int64_t begin, int64_t end) {
  with_wide_element(a.element, [&](auto w) {
    typedef decltype(w) W;
    a.bytes ? rgb_to_l_pixels_of<W, uint8_t>(a, begin, end)
            : rgb_to_l_pixels_of<W, W>(a, begin, end);
  });
}

// Bilinear sampling along one axis: output `index` of `size` lies between inputs low and high of
// `from`.
template <class W>
struct Sample {
  Sample(int64_t index, int64_t size, int64_t from) {
    W position = (W(index) + W(0.5)) * (W(from) / W(size)) - W(0.5);
    position = position < 0 ? W(0) : position;
    low = int64_t(position);
    low = low < from - 1 ? low : from - 1;
    high = low < from - 1 ? low + 1 : low;
    weight = position - W(low);
  }
  int64_t low, high;
  W weight;  // of high
};

template <class W>
inline W f_inverse(W f) {
  return f > W(kLinearF) ? f * f * f : (f - W(16.0 / 116)) / W(7.787);
}

template <class W, class Out>
inline void lab_to_rgb_rows_of(const LabToRgbArgs& a, int64_t begin, int64_t end) {
  const Scratch<W> blended(2 * a.ab_columns);
  const Scratch<Sample<W>> across(a.columns);
  for (int64_t x = 0; x < a.columns; ++x) across[x] = Sample<W>(x, a.columns, a.ab_columns);
  const int64_t pixels = a.rows * a.columns;
  for (int64_t index = begin; index < end; ++index) {
    const int64_t image = index / a.rows, row = index % a.rows;
    const Sample<W> down(row, a.rows, a.ab_rows);
    for (int channel = 0; channel < 2; ++channel) {
      const W* plane =
          static_cast<const W*>(a.ab) + (image * 2 + channel) * a.ab_rows * a.ab_columns;
      const W *low = plane + down.low * a.ab_columns, *high = plane + down.high * a.ab_columns;
      W* to = blended + channel * a.ab_columns;
      for (int64_t x = 0; x < a.ab_columns; ++x) to[x] = low[x] + (high[x] - low[x]) * down.weight;
    }
    const W* lightness = static_cast<const W*>(a.lightness) + index * a.columns;
    Out* rgb = static_cast<Out*>(a.rgb) + image * 3 * pixels + row * a.columns;
    for (int64_t first = 0; first < a.columns; first += kStrip) {
      const int count = int(a.columns - first < kStrip ? a.columns - first : kStrip);
      W chroma[2][kStrip];
      for (int channel = 0; channel < 2; ++channel) {
        const W* from = blended + channel * a.ab_columns;
        for (int i = 0; i < count; ++i) {
          const Sample<W>& s = across[first + i];
          chroma[channel][i] = from[s.low] + (from[s.high] - from[s.low]) * s.weight;
        }
      }
      W linear[3][kStrip];
      for (int i = 0; i < count; ++i) {
        const W fy = (lightness[first + i] + 16) / 116;
        const W x = f_inverse(fy + chroma[0][i] / 500) * W(kWhiteX), y = f_inverse(fy);
        const W z = f_inverse(fy - chroma[1][i] / 200) * W(kWhiteZ);
        linear[0][i] = W(kRx) * x + W(kRy) * y + W(kRz) * z;
        linear[1][i] = W(kGx) * x + W(kGy) * y + W(kGz) * z;
        linear[2][i] = W(kBx) * x + W(kBy) * y + W(kBz) * z;
      }
      for (int channel = 0; channel < 3; ++channel) {
        Out* to = rgb + channel * pixels + first;
        for (int i = 0; i < count; ++i) {
          const W value = encode_srgb(linear[channel][i]);
          if constexpr (sizeof(Out) == 1) {
            to[i] = Out(value * 255 + W(0.5));
          } else {
            to[i] = value;
          }
        }
      }
    }
  }
}

inline void lab_to_rgb_rows(const LabToRgbArgs& a, int64_t begin, int64_t end) {
  with_wide_element(a.element, [&](auto w) {
    typedef decltype(w) W;
    a.bytes ? lab_to_rgb_rows_of<W, uint8_t>(a, begin, end)
            : lab_to_rgb_rows_of<W, W>(a, begin, end);
  });
}

}  // namespace disco_fast::DISCO_FAST_ISA
