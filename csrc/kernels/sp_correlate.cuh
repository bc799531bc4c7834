// The gradient to the association: dot product of a pixel's vector with its nine candidate tokens.
// A thread owns a pixel; tokens pass through shared memory, 64 channels at a time.
#pragma once

#include "cells.cuh"

namespace disco_fast {

// Grid: cells of all images x tiles of a cell.
template <class T, Layout L>
__global__ void __launch_bounds__(kCellThreads) sp_correlate_kernel(const SpCorrelateArgs a) {
  typedef Wide<T> W;
  __shared__ __align__(16) W tokens[9 * kBlockChannels];
  const Cell cell(a.grid, blockIdx.x);
  const int size = int(a.grid.cell), index = int(blockIdx.y) * kTile + int(threadIdx.x);
  const bool here = index < size * size;
  const T* pixel = cell_corner<const T>(a.features, a.grid, cell);
  if (here) pixel += pixel_offset(a.features, index, size);

  W total[9] = {};
  for (int64_t first = 0; first < a.channels; first += kBlockChannels) {
    const int64_t left = a.channels - first;
    const int channels = int(left < kBlockChannels ? left : kBlockChannels);
    if (first > 0) __syncthreads();  // the last tokens have been read
    pack_tokens(a.tokens, a.grid, cell, first, channels, kBlockChannels, tokens);
    __syncthreads();
    if (!here) continue;
    for (int c = 0; c < channels; c += kQuad) {
      W value[kQuad] = {};
      const T* from = pixel + (first + c) * a.features.channel;
      if constexpr (L == Layout::kInterleaved) {
        const Pack<T, kQuad> pack = load_pack<kQuad>(from);
#pragma unroll
        for (int j = 0; j < kQuad; ++j) value[j] = widen(pack.value[j]);
      } else {
#pragma unroll
        for (int j = 0; j < kQuad; ++j) {
          if (c + j < channels) value[j] = widen(from[j * a.features.channel]);
        }
      }
#pragma unroll
      for (int slot = 0; slot < 9; ++slot) {
        const Pack<W, kQuad> token = load_pack<kQuad>(tokens + slot * kBlockChannels + c);
#pragma unroll
        for (int j = 0; j < kQuad; ++j) total[slot] += value[j] * token.value[j];
      }
    }
  }
  if (!here) return;
  const int64_t width = a.grid.columns * size, height = a.grid.rows * size;
  const int64_t y = cell.row * int64_t(size) + index / size;
  const int64_t x = cell.column * int64_t(size) + index % size;
  T* out = static_cast<T*>(a.association) + (cell.image * 9 * height + y) * width + x;
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
    const int other = neighbor(a.grid, cell.row, cell.column, slot);
    W product = other < 0 ? W(0) : total[slot];
    if (other >= 0 && a.offset.data != nullptr) {
      product += *at<const W>(a.offset, cell.image, 0, other / int(a.grid.columns),
                              other % int(a.grid.columns));
    }
    out[slot * height * width] = narrow<T>(product);
  }
}

}  // namespace disco_fast
