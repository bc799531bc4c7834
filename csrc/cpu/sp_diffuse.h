// SP-Diffusion. A cell's nine candidate tokens are packed once; every output pixel is written once.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// B planar channels at a time: 9 * B token values stay in registers, the association streams past.
template <class W, int L, int B>
inline void diffuse_planes(const W* tokens, int64_t channels, const W* weights, int64_t s,
                           W* const* planes, int64_t row_stride) {
  Vector<W, L> token[9][B];
  for (int slot = 0; slot < 9; ++slot) {
    for (int b = 0; b < B; ++b) token[slot][b] = broadcast<W, L>(tokens[slot * channels + b]);
  }
  for (int64_t y = 0; y < s; ++y) {
    for (int64_t x = 0; x < s; x += L) {
      Vector<W, L> mix[B] = {};
#pragma GCC unroll 9
      for (int slot = 0; slot < 9; ++slot) {
        const Vector<W, L> w = load<L>(weights + slot * s * s + y * s + x);
        for (int b = 0; b < B; ++b) mix[b] += w * token[slot][b];
      }
      for (int b = 0; b < B; ++b) store<L>(planes[b] + y * row_stride + x, mix[b]);
    }
  }
}

template <class T, int L>
inline void diffuse_planar(const SpDiffuseArgs& a, const Wide<T>* tokens, const Wide<T>* weights,
                           Wide<T>* tile, T* corner) {
  typedef Wide<T> W;
  constexpr int B = kRegisters == 32 ? 2 : 1;
  const int64_t s = a.grid.cell;
  for (int64_t c = 0; c < a.channels; c += B) {
    const int count = int(a.channels - c < B ? a.channels - c : B);
    W* planes[B];
    for (int b = 0; b < count; ++b) {
      if constexpr (kIsWide<T>) {
        planes[b] = corner + (c + b) * a.features.channel;
      } else {
        planes[b] = tile + b * s * s;
      }
    }
    const int64_t row_stride = kIsWide<T> ? a.features.row : s;
    if (count == B) {
      diffuse_planes<W, L, B>(tokens + c, a.channels, weights, s, planes, row_stride);
    } else {
      diffuse_planes<W, L, 1>(tokens + c, a.channels, weights, s, planes, row_stride);
    }
    if constexpr (!kIsWide<T>) {
      for (int b = 0; b < count; ++b) {
        for (int64_t y = 0; y < s; ++y) {
          T* to = corner + (c + b) * a.features.channel + y * a.features.row;
          for (int64_t x = 0; x < s; ++x) to[x] = narrow<T>(planes[b][y * s + x]);
        }
      }
    }
  }
}

// B * L adjacent channels at a time, all pixels of the cell.
template <class T, int L, int B>
inline void diffuse_channels(const SpDiffuseArgs& a, const Wide<T>* tokens, const Wide<T>* weights,
                             T* corner) {
  typedef Wide<T> W;
  const int64_t s = a.grid.cell;
  Vector<W, L> token[9][B];
  for (int slot = 0; slot < 9; ++slot) {
    for (int b = 0; b < B; ++b) token[slot][b] = load<L>(tokens + slot * a.channels + b * L);
  }
  for (int64_t y = 0; y < s; ++y) {
    for (int64_t x = 0; x < s; ++x) {
      Vector<W, L> mix[B] = {};
#pragma GCC unroll 9
      for (int slot = 0; slot < 9; ++slot) {
        const W w = weights[slot * s * s + y * s + x];
        for (int b = 0; b < B; ++b) mix[b] += w * token[slot][b];
      }
      T* to = corner + y * a.features.row + x * a.features.column;
      for (int b = 0; b < B; ++b) {
        if constexpr (kIsWide<T>) {
          store<L>(to + b * L, mix[b]);
        } else {
          W lanes[L];
          store<L>(lanes, mix[b]);
          for (int i = 0; i < L; ++i) to[b * L + i] = narrow<T>(lanes[i]);
        }
      }
    }
  }
}

template <class T>
inline void diffuse_interleaved(const SpDiffuseArgs& a, const Wide<T>* tokens,
                                const Wide<T>* weights, T* corner) {
  constexpr int L = kLanes<Wide<T>>, B = kRegisters == 32 ? 2 : 1;
  int64_t c = 0;
  for (; c + B * L <= a.channels; c += B * L) {
    diffuse_channels<T, L, B>(a, tokens + c, weights, corner + c);
  }
  for (; c + L <= a.channels; c += L) diffuse_channels<T, L, 1>(a, tokens + c, weights, corner + c);
  for (; c < a.channels; ++c) diffuse_channels<T, 1, 1>(a, tokens + c, weights, corner + c);
}

template <class T>
inline void copy_lead(const SpDiffuseArgs& a, const Cell& cell, T* corner) {
  const T* from = cell_corner<const T>(a.lead, a.grid, cell);
  for (int64_t y = 0; y < a.grid.cell; ++y) {
    for (int64_t x = 0; x < a.grid.cell; ++x) {
      T* to = corner + y * a.features.row + x * a.features.column;
      *to = from[y * a.lead.row + x * a.lead.column];
      for (int64_t c = 1; c < a.lead_channels; ++c) to[c * a.features.channel] = {};
    }
  }
}

template <class T>
inline void sp_diffuse_cells_of(const SpDiffuseArgs& a, int64_t begin, int64_t end) {
  typedef Wide<T> W;
  const int64_t area = a.grid.cell * a.grid.cell;
  const Scratch<W> weights(9 * area), tokens(9 * a.channels), tile(2 * area);
  for (int64_t index = begin; index < end; ++index) {
    const Cell cell(a.grid, index);
    pack_association<T>(a.association, a.grid, cell, weights);
    pack_tokens<W>(a.tokens, a.grid, cell, a.channels, tokens);
    T* corner = cell_corner<T>(a.features, a.grid, cell);
    if (a.lead_channels > 0) copy_lead<T>(a, cell, corner);
    corner += a.lead_channels * a.features.channel;
    if (a.features.column == 1) {
      with_row_lanes<W>(a.grid.cell, [&](auto lanes) {
        diffuse_planar<T, lanes.value>(a, tokens, weights, tile, corner);
      });
    } else {
      diffuse_interleaved<T>(a, tokens, weights, corner);
    }
  }
}

inline void sp_diffuse_cells(const SpDiffuseArgs& a, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  with_element(a.element, [&](auto t) { sp_diffuse_cells_of<decltype(t)>(a, begin, end); });
}

}  // namespace disco_fast::DISCO_FAST_ISA
