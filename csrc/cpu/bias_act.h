// What follows a convolution, in one pass: bias, residual, activation, scale and shift, and another
// tensor's channels in front.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// One of the row of parameters, which may be missing.
template <class W>
inline W parameter(const void* row, int64_t channel, W missing) {
  return row == nullptr ? missing : static_cast<const W*>(row)[channel];
}

template <class W>
inline W activate(W value, W slope) {
  const W low = slope == 0 ? W(0) : value * slope;  // so that minus infinity becomes 0
  return value < 0 ? low : value;
}

// Parameters of pixels are repeated for so many values, so that few channels fill vectors too.
constexpr int64_t kRepeated = 1024;

// How many values that is: of whole pixels, one at least.
inline int64_t repeated(int64_t channels) {
  return channels > 0 && channels < kRepeated ? kRepeated / channels * channels : channels;
}

template <class T>
inline void copy(const T* __restrict from, int64_t count, T* __restrict to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i];
}

template <class T>
inline void bias_act_some(const T* __restrict x, const T* __restrict residual, int64_t count,
                          Wide<T> slope, const Wide<T>* __restrict bias,
                          const Wide<T>* __restrict scale, const Wide<T>* __restrict shift,
                          T* __restrict out) {
  if (residual == nullptr) {
    for (int64_t i = 0; i < count; ++i) {
      out[i] = narrow<T>(activate(widen(x[i]) + bias[i], slope) * scale[i] + shift[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const Wide<T> sum = widen(x[i]) + bias[i] + widen(residual[i]);
      out[i] = narrow<T>(activate(sum, slope) * scale[i] + shift[i]);
    }
  }
}

// Items: rows of `channels` values where these are adjacent, else planes of `inner` values.
template <class T>
inline void bias_act_rows_of(const BiasActArgs& a, int64_t begin, int64_t end) {
  typedef Wide<T> W;
  const bool last = a.inner == 1;
  const int64_t count = last ? repeated(a.channels) : a.inner < kRepeated ? a.inner : kRepeated;
  const Scratch<W> bias(count), scale(count), shift(count);
  const int64_t each = last ? a.channels : a.inner;
  const int64_t together = last && a.lead_channels == 0 ? end - begin : 1;
  const int64_t lead = a.lead_channels * a.inner, row = a.channels * a.inner;
  const T* residual = static_cast<const T*>(a.residual);
  for (int64_t item = begin; item < end; item += together) {
    for (int64_t i = 0; i < count && (!last || item == begin); ++i) {
      const int64_t c = (last ? i : item) % a.channels;
      bias[i] = parameter(a.bias, c, W(0));
      scale[i] = parameter(a.scale, c, W(1));
      shift[i] = parameter(a.shift, c, W(0));
    }
    const int64_t start = item * each, stop = start + together * each, before = start / row * lead;
    T* out = static_cast<T*>(a.out) + before;
    if (start % row == 0) {
      copy(static_cast<const T*>(a.lead) + before, lead, out + start);
    }
    for (int64_t i = start; i < stop; i += count) {
      bias_act_some(static_cast<const T*>(a.x) + i, residual == nullptr ? nullptr : residual + i,
                    stop - i < count ? stop - i : count, W(a.slope), bias, scale, shift,
                    out + lead + i);
    }
  }
}

inline void bias_act_rows(const BiasActArgs& a, int64_t begin, int64_t end) {
  with_element(a.element, [&](auto t) { bias_act_rows_of<decltype(t)>(a, begin, end); });
}

}  // namespace disco_fast::DISCO_FAST_ISA
