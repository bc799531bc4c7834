// SP-Diffusion. A thread keeps the nine candidate tokens of its quad of channels in registers,
// while the cell's association passes through shared memory; every output value is written once.
#pragma once

#include "cells.cuh"

namespace disco_fast {

// The leading channels of a pixel, of which the first is `value`.
template <class T>
__device__ __forceinline__ void write_lead(const SpDiffuseArgs& a, T value, T* to) {
#pragma unroll 1
  for (int64_t c = 0; c < a.lead_channels; ++c) {
    *to = c == 0 ? value : narrow<T>(Wide<T>(0));
    to += a.features.channel;
  }
}

// Writes the thread's quad for its runs of the tile.
template <class T, Layout L, int kQuads>
__device__ __forceinline__ void diffuse_runs(const View& features, T* corner, int first, int size,
                                             int channels, const Share<kQuads>& share,
                                             const Wide<T>* weights,
                                             const Wide<T> (*token)[kQuad]) {
  typedef Wide<T> W;
  constexpr int kPixels = kRun<T, L>;
  const int left = size * size - first, count = left < kTile ? left : kTile;
  for (int p = share.group * kPixels; p < count; p += share.groups() * kPixels) {
    Run<T, L, kQuads> run;
#pragma unroll
    for (int v = 0; v < kPixels; ++v) {
      W weight[9];
      load_weights(weights + (p + v) * kPitch, weight);
#pragma unroll
      for (int j = 0; j < kQuad; ++j) {
        W mix = 0;
#pragma unroll
        for (int slot = 0; slot < 9; ++slot) mix += weight[slot] * token[slot][j];
        run.at(v, j) = narrow<T>(mix);
      }
    }
    run.store(corner + pixel_offset(features, first + p, size), features, share, channels);
  }
}

// Grid: cells of all images x blocks of 64 channels; the first block of channels also writes the
// leading channels.
template <class T, Layout L, int kQuads>
__global__ void __launch_bounds__(kCellThreads,
                                  cell_blocks<T>(L == Layout::kPlanar ||
                                                 (L == Layout::kInterleaved && kQuads == 0)))
    sp_diffuse_kernel(const SpDiffuseArgs a, const int quads) {
  typedef Wide<T> W;
  __shared__ __align__(16) W weights[kTile * kPitch];
  __shared__ W tokens[9 * kBlockChannels];
  const int64_t first_channel = int64_t(blockIdx.y) * kBlockChannels;
  const Cell cell(a.grid, blockIdx.x);
  const Share<kQuads> share(quads);
  const int size = int(a.grid.cell), area = size * size, t = threadIdx.x;
  const int64_t left = a.channels - first_channel;
  const int channels = int(left < kBlockChannels ? left : kBlockChannels);
  T* corner = cell_corner<T>(a.features, a.grid, cell);
  const T* association = cell_corner<const T>(a.association, a.grid, cell);

  const auto fill_tile = [&](int first) {
    if (first + t >= area) return;
    W values[9];
    load_candidates<T>(a.association, association, first + t, size, values);
    drop_outside(a.grid, cell, values);
    store_weights(weights + t * kPitch, values);
    if (a.lead_channels == 0 || blockIdx.y > 0) return;
    const T* from = cell_corner<const T>(a.lead, a.grid, cell);
    write_lead(a, from[pixel_offset(a.lead, first + t, size)],
               corner + pixel_offset(a.features, first + t, size));
  };
  pack_tokens(a.tokens, a.grid, cell, first_channel, channels, kBlockChannels, tokens);
  fill_tile(0);
  __syncthreads();
  W token[9][kQuad];
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      token[slot][j] = tokens[slot * kBlockChannels + share.template channel<L>(j)];
    }
  }
  T* out = corner + (first_channel + a.lead_channels) * a.features.channel;
  for (int first = 0; first < area; first += kTile) {
    if (first > 0) {
      __syncthreads();  // the last tile has been read
      fill_tile(first);
      __syncthreads();
    }
    if (share.template channel<L>(0) < channels) {
      diffuse_runs<T, L>(a.features, out, first, size, channels, share, weights, token);
    }
  }
}

}  // namespace disco_fast
