// SP-Pooling. Per cell a small matrix product [9 x S^2] x [S^2 x C] into partial sums, so that the
// features are read once; then every superpixel adds up its nine partial sums in a fixed order.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// B planar channels at a time: 9 * B accumulators must stay in registers.
template <class W, int L, int B>
inline void aggregate_planes(const W* const* planes, int64_t row_stride, const W* weights,
                             int64_t s, W* partial, int64_t stride) {
  Vector<W, L> total[9][B] = {};
  for (int64_t y = 0; y < s; ++y) {
    for (int64_t x = 0; x < s; x += L) {
      Vector<W, L> value[B];
      for (int b = 0; b < B; ++b) value[b] = load<L>(planes[b] + y * row_stride + x);
      const W* weight = weights + y * s + x;
#pragma GCC unroll 9
      for (int slot = 0; slot < 9; ++slot) {
        const Vector<W, L> w = load<L>(weight + slot * s * s);
        for (int b = 0; b < B; ++b) total[slot][b] += w * value[b];
      }
    }
  }
  for (int slot = 0; slot < 9; ++slot) {
    for (int b = 0; b < B; ++b) partial[slot * stride + b] = sum<W, L>(total[slot][b]);
  }
}

template <class T, int L>
inline void sp_pool_planar(const SpPoolArgs& a, const T* corner, const Wide<T>* weights,
                           Wide<T>* tile, Wide<T>* partial) {
  typedef Wide<T> W;
  constexpr int B = kRegisters == 32 ? 3 : 1;
  const int64_t s = a.grid.cell, stride = a.channels + 1;
  for (int64_t c = 0; c < a.channels; c += B) {
    const int count = int(a.channels - c < B ? a.channels - c : B);
    const W* planes[B];
    int64_t row_stride = a.features.row;
    for (int b = 0; b < count; ++b) {
      const T* plane = corner + (c + b) * a.features.channel;
      if constexpr (kIsWide<T>) {
        planes[b] = plane;
      } else {
        W* copy = tile + b * s * s;
        for (int64_t y = 0; y < s; ++y) {
          for (int64_t x = 0; x < s; ++x) copy[y * s + x] = widen(plane[y * a.features.row + x]);
        }
        planes[b] = copy;
        row_stride = s;
      }
    }
    // The next planes, a quarter of a megabyte further on each, are no pattern that hardware
    // foresees.
    const T* next = corner + (c + B) * a.features.channel;
    for (int b = 0; b < B && c + B + b < a.channels; ++b) {
      for (int64_t y = 0; y < s; ++y) {
        __builtin_prefetch(next + b * a.features.channel + y * a.features.row);
      }
    }
    if (count == B) {
      aggregate_planes<W, L, B>(planes, row_stride, weights, s, partial + c, stride);
    } else {
      for (int b = 0; b < count; ++b) {
        aggregate_planes<W, L, 1>(planes + b, row_stride, weights, s, partial + c + b, stride);
      }
    }
  }
}

// B * L adjacent channels at a time, all pixels of the cell.
template <class W, int L, int B>
inline void aggregate_channels(const W* pixels, int64_t row_stride, int64_t pixel_stride,
                               const W* weights, int64_t s, W* partial, int64_t stride) {
  Vector<W, L> total[9][B] = {};
  for (int64_t y = 0; y < s; ++y) {
    for (int64_t x = 0; x < s; ++x) {
      const W* pixel = pixels + y * row_stride + x * pixel_stride;
      Vector<W, L> value[B];
      for (int b = 0; b < B; ++b) value[b] = load<L>(pixel + b * L);
#pragma GCC unroll 9
      for (int slot = 0; slot < 9; ++slot) {
        const W w = weights[slot * s * s + y * s + x];
        for (int b = 0; b < B; ++b) total[slot][b] += w * value[b];
      }
    }
  }
  for (int slot = 0; slot < 9; ++slot) {
    for (int b = 0; b < B; ++b) store<L>(partial + slot * stride + b * L, total[slot][b]);
  }
}

template <class T>
inline void sp_pool_interleaved(const SpPoolArgs& a, const T* corner, const Wide<T>* weights,
                                Wide<T>* tile, Wide<T>* partial) {
  typedef Wide<T> W;
  constexpr int L = kLanes<W>, B = kRegisters == 32 ? 3 : 1;
  const int64_t s = a.grid.cell, stride = a.channels + 1;
  int64_t row_stride = a.features.row, pixel_stride = a.features.column;
  const W* pixels;
  if constexpr (kIsWide<T>) {
    pixels = corner;
  } else {
    for (int64_t y = 0; y < s; ++y) {
      for (int64_t x = 0; x < s; ++x) {
        const T* from = corner + y * row_stride + x * pixel_stride;
        W* to = tile + (y * s + x) * a.channels;
        for (int64_t c = 0; c < a.channels; ++c) to[c] = widen(from[c]);
      }
    }
    pixels = tile;
    row_stride = s * a.channels;
    pixel_stride = a.channels;
  }
  int64_t c = 0;
  for (; c + B * L <= a.channels; c += B * L) {
    aggregate_channels<W, L, B>(pixels + c, row_stride, pixel_stride, weights, s, partial + c,
                                stride);
  }
  for (; c + L <= a.channels; c += L) {
    aggregate_channels<W, L, 1>(pixels + c, row_stride, pixel_stride, weights, s, partial + c,
                                stride);
  }
  for (; c < a.channels; ++c) {
    aggregate_channels<W, 1, 1>(pixels + c, row_stride, pixel_stride, weights, s, partial + c,
                                stride);
  }
}

// Features of type T, an association of type A.
template <class T, class A>
inline void sp_pool_cells_of(const SpPoolArgs& a, int64_t begin, int64_t end) {
  typedef Wide<A> W;
  const int64_t area = a.grid.cell * a.grid.cell, stride = a.channels + 1;
  const Scratch<W> weights(9 * area), tile(area * (a.channels > 3 ? a.channels : 3));
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    pack_association<A>(a.association, a.grid, cell, weights);
    const T* corner = cell_corner<const T>(a.features, a.grid, cell);
    W* partial = static_cast<W*>(a.partial) + index * 9 * stride;
    if (a.features.column == 1) {
      with_row_lanes<W>(a.grid.cell, [&](auto lanes) {
        sp_pool_planar<T, lanes.value>(a, corner, weights, tile, partial);
      });
    } else {
      sp_pool_interleaved<T>(a, corner, weights, tile, partial);
    }
    for (int slot = 0; slot < 9; ++slot) {
      W total = 0;
      for (int64_t i = 0; i < area; ++i) total += weights[slot * area + i];
      partial[slot * stride + a.channels] = total;
    }
  }
}

template <class W>
inline void sp_pool_gather_cells_of(const SpPoolArgs& a, int64_t begin, int64_t end) {
  const int64_t stride = a.channels + 1, cells = a.grid.cells();
  const W area = W(a.grid.cell * a.grid.cell);
  const Scratch<W> total(stride);
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    const int64_t position = index % cells;
    for (int64_t c = 0; c < stride; ++c) total[c] = 0;
    for (int slot = 0; slot < 9; ++slot) {
      // The cell in direction `slot` sees this superpixel in the opposite direction.
      const int64_t other = neighbor(a.grid, cell.row, cell.column, slot);
      if (other < 0) continue;
      const W* partial = static_cast<const W*>(a.partial) +
                         ((cell.image * cells + other) * 9 + (8 - slot)) * stride;
      for (int64_t c = 0; c < stride; ++c) total[c] += partial[c];
    }
    const W weight = total[a.channels] / area;
    const W divisor = a.normalize ? (weight + W(1e-8)) * area : area;
    W* sums = static_cast<W*>(a.sums) + cell.image * a.channels * cells + position;
    for (int64_t c = 0; c < a.channels; ++c) sums[c * cells] = total[c] / divisor;
    static_cast<W*>(a.weight)[index] = weight;
  }
}

inline void sp_pool_cells(const SpPoolArgs& a, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  with_element(a.features_element, [&](auto t) {
    typedef decltype(t) T;
    if (a.features_element == a.element) return sp_pool_cells_of<T, T>(a, begin, end);
    if constexpr (!kIsWide<T>) sp_pool_cells_of<T, float>(a, begin, end);
  });
}

inline void sp_pool_gather_cells(const SpPoolArgs& a, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  with_wide_element(a.element,
                    [&](auto w) { sp_pool_gather_cells_of<decltype(w)>(a, begin, end); });
}

}  // namespace disco_fast::DISCO_FAST_ISA
