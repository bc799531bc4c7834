// Size of superpixels under hard assignment: each pixel joins its most probable candidate.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

template <class T>
inline void count_wins_of(const SizeArgs& a, int64_t begin, int64_t end) {
  const int64_t s = a.grid.cell;
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    const T* corner = cell_corner<T>(a.association, a.grid, cell);
    int32_t wins[9] = {};
    for (int64_t i = 0; i < s * s; ++i) {
      const T* pixel = corner + i / s * a.association.row + i % s * a.association.column;
      Wide<T> value[9], best = widen(pixel[0]);
      bool ordered = true;
      for (int slot = 0; slot < 9; ++slot) {
        value[slot] = widen(pixel[slot * a.association.channel]);
        best = value[slot] > best ? value[slot] : best;
        ordered &= value[slot] == value[slot];
      }
      for (int slot = 0; slot < 9; ++slot) wins[slot] += ordered && value[slot] == best;
    }
    for (int slot = 0; slot < 9; ++slot) a.wins[index * 9 + slot] = wins[slot];
  }
}

inline void count_wins(const SizeArgs& a, int64_t begin, int64_t end) {
  // Denormals are compared as they are: equality must not depend on the processor's mode.
  with_element(a.element, [&](auto t) { count_wins_of<decltype(t)>(a, begin, end); });
}

inline void gather_wins(const SizeArgs& a, int64_t begin, int64_t end) {
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    int64_t total = 0;
    for (int slot = 0; slot < 9; ++slot) {
      const int64_t other = neighbour(a.grid, cell, slot);
      if (other >= 0) total += a.wins[(cell.image * a.grid.cells() + other) * 9 + (8 - slot)];
    }
    with_wide_element(a.element, [&](auto w) {
      typedef decltype(w) W;
      static_cast<W*>(a.size)[index] = W(total) / W(a.grid.cell * a.grid.cell);
    });
  }
}

}  // namespace disco_fast::DISCO_FAST_ISA
