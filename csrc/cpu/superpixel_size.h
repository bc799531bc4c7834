// Size of superpixels under hard assignment: each pixel joins its most probable candidate.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// Adds to wins[9] what a row of L neighboring pixels gives.
template <class T, int L>
inline void count_row(const View& association, const T* row, Vector<Index<Wide<T>>, L>* wins) {
  typedef Wide<T> W;
  Vector<W, L> value[9];
  for (int slot = 0; slot < 9; ++slot) {
    const T* from = row + slot * association.channel;
    W lanes[L];
    if (association.column == 1) {
      for (int i = 0; i < L; ++i) lanes[i] = widen(from[i]);
    } else {
      for (int i = 0; i < L; ++i) lanes[i] = widen(from[i * association.column]);
    }
    value[slot] = load<L>(lanes);
  }
  Vector<W, L> best = value[0];
  auto unordered = value[0] != value[0];  // a NaN among the candidates: the pixel joins nobody
  for (int slot = 1; slot < 9; ++slot) {
    best = value[slot] > best ? value[slot] : best;
    unordered |= value[slot] != value[slot];
  }
  const Vector<Index<W>, L> zero = {}, one = zero + 1;
  for (int slot = 0; slot < 9; ++slot) {
    const Vector<Index<W>, L> won = value[slot] == best ? one : zero;
    wins[slot] += unordered ? zero : won;
  }
}

template <class T>
inline void superpixel_size_count_of(const SuperpixelSizeArgs& a, int64_t begin, int64_t end) {
  typedef Wide<T> W;
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    const T* corner = cell_corner<const T>(a.association, a.grid, cell);
    with_row_lanes<W>(a.grid.cell, [&](auto lanes) {
      constexpr int L = lanes.value;
      Vector<Index<W>, L> wins[9] = {};
      for (int64_t y = 0; y < a.grid.cell; ++y) {
        for (int64_t x = 0; x < a.grid.cell; x += L) {
          count_row<T, L>(a.association, corner + y * a.association.row + x * a.association.column,
                          wins);
        }
      }
      for (int slot = 0; slot < 9; ++slot) {
        a.wins[index * 9 + slot] = int32_t(sum<Index<W>, L>(wins[slot]));
      }
    });
  }
}

inline void superpixel_size_count(const SuperpixelSizeArgs& a, int64_t begin, int64_t end) {
  // Denormals are compared as they are: equality must not depend on the processor's mode.
  with_element(a.element, [&](auto t) { superpixel_size_count_of<decltype(t)>(a, begin, end); });
}

inline void superpixel_size_gather(const SuperpixelSizeArgs& a, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    int64_t total = 0;
    for (int slot = 0; slot < 9; ++slot) {
      const int64_t other = neighbor(a.grid, cell.row, cell.column, slot);
      if (other >= 0) total += a.wins[(cell.image * a.grid.cells() + other) * 9 + (8 - slot)];
    }
    with_wide_element(a.element, [&](auto w) {
      typedef decltype(w) W;
      static_cast<W*>(a.size)[index] = W(total) / W(a.grid.cell * a.grid.cell);
    });
  }
}

}  // namespace disco_fast::DISCO_FAST_ISA
