// The gradient to the association: dot product of a pixel's vector with its nine candidate tokens.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// L neighboring pixels of a planar map at a time.
template <class T, int L>
inline void correlate_planar(const SpCorrelateArgs& a, const T* corner, const Wide<T>* tokens,
                             Wide<T>* products) {
  typedef Wide<T> W;
  const int64_t s = a.grid.cell;
  for (int64_t y = 0; y < s; ++y) {
    for (int64_t x = 0; x < s; x += L) {
      Vector<W, L> total[9] = {};
      for (int64_t c = 0; c < a.channels; ++c) {
        const T* from = corner + c * a.features.channel + y * a.features.row + x;
        W lanes[L];
        for (int i = 0; i < L; ++i) lanes[i] = widen(from[i]);
        const Vector<W, L> value = load<L>(lanes);
#pragma GCC unroll 9
        for (int slot = 0; slot < 9; ++slot) total[slot] += value * tokens[slot * a.channels + c];
      }
      for (int slot = 0; slot < 9; ++slot)
        store<L>(products + slot * s * s + y * s + x, total[slot]);
    }
  }
}

// L channels of one pixel of an interleaved map at a time.
template <class T>
inline void correlate_interleaved(const SpCorrelateArgs& a, const T* corner, const Wide<T>* tokens,
                                  Wide<T>* products) {
  typedef Wide<T> W;
  constexpr int L = kLanes<W>;
  const int64_t s = a.grid.cell;
  for (int64_t i = 0; i < s * s; ++i) {
    const T* pixel = corner + i / s * a.features.row + i % s * a.features.column;
    Vector<W, L> total[9] = {};
    int64_t c = 0;
    for (; c + L <= a.channels; c += L) {
      W lanes[L];
      for (int k = 0; k < L; ++k) lanes[k] = widen(pixel[c + k]);
      const Vector<W, L> value = load<L>(lanes);
#pragma GCC unroll 9
      for (int slot = 0; slot < 9; ++slot) {
        total[slot] += value * load<L>(tokens + slot * a.channels + c);
      }
    }
    for (int slot = 0; slot < 9; ++slot) {
      W dot = sum<W, L>(total[slot]);
      for (int64_t rest = c; rest < a.channels; ++rest) {
        dot += widen(pixel[rest]) * tokens[slot * a.channels + rest];
      }
      products[slot * s * s + i] = dot;
    }
  }
}

template <class T>
inline void sp_correlate_cells_of(const SpCorrelateArgs& a, int64_t begin, int64_t end) {
  typedef Wide<T> W;
  const int64_t s = a.grid.cell, width = a.grid.columns * s, height = a.grid.rows * s;
  const Scratch<W> tokens(9 * a.channels), products(9 * s * s);
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    pack_tokens<W>(a.tokens, a.grid, cell, a.channels, tokens);
    const T* corner = cell_corner<const T>(a.features, a.grid, cell);
    if (a.features.column == 1) {
      with_row_lanes<W>(
          s, [&](auto lanes) { correlate_planar<T, lanes.value>(a, corner, tokens, products); });
    } else {
      correlate_interleaved<T>(a, corner, tokens, products);
    }
    for (int slot = 0; slot < 9; ++slot) {
      const int64_t other = neighbor(a.grid, cell.row, cell.column, slot);
      const W offset = other < 0 || a.offset.data == nullptr
                           ? W(0)
                           : *at<const W>(a.offset, cell.image, 0, other / a.grid.columns,
                                          other % a.grid.columns);
      T* to = static_cast<T*>(a.association) +
              ((cell.image * 9 + slot) * height + cell.row * s) * width + cell.column * s;
      for (int64_t i = 0; i < s * s; ++i) {
        to[i / s * width + i % s] =
            narrow<T>(other < 0 ? W(0) : products[slot * s * s + i] + offset);
      }
    }
  }
}

inline void sp_correlate_cells(const SpCorrelateArgs& a, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  with_element(a.element, [&](auto t) { sp_correlate_cells_of<decltype(t)>(a, begin, end); });
}

}  // namespace disco_fast::DISCO_FAST_ISA
