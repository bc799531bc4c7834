// SP-Pooling and superpixel sizes. Two kernels: each cell adds up its pixels for its nine
// candidates, reading the features once; then each superpixel adds up what the nine cells around it
// have for it, in a fixed order. No atomics on floats, so two runs give the same bits.
#pragma once

#include "cells.cuh"

namespace disco_fast {

constexpr int kParts = 16;  // parts of a tile in which weights are added up
constexpr int kCellWarps = kCellThreads / kWarp;
constexpr int kGathered = 8;  // superpixels of a gathering block, one a warp
constexpr int kGatherThreads = kGathered * kWarp;

// Shared memory of sp_pool_kernel: first the weights of a tile, in the end sums of the warps.
template <class W>
struct AggregateShared {
  static constexpr int kWeights = kTile * kPitch;
  static constexpr int kSums = kCellWarps * 9 * kBlockChannels;
  alignas(16) W values[kWeights > kSums ? kWeights : kSums];
  short winners[kTile];  // bit `slot`: the pixel joins that candidate
  W part_weight[9 * kParts];
  int part_wins[9 * kParts];
};

// Which candidates a pixel joins: all that tie for the maximum, none where one is NaN.
template <class W>
__device__ __forceinline__ short winners_of(const W* values) {
  W best = values[0];
  bool ordered = values[0] == values[0];
#pragma unroll
  for (int slot = 1; slot < 9; ++slot) {
    best = values[slot] > best ? values[slot] : best;
    ordered = ordered && values[slot] == values[slot];
  }
  int winners = 0;
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) winners |= (values[slot] == best) << slot;
  return short(ordered ? winners : 0);
}

// Fills the tile that begins at pixel `first` of the cell; pixels beyond its end weigh nothing.
template <class A>
__device__ __forceinline__ void fill_tile(const SpPoolArgs& a, const Cell& cell, int first,
                                          AggregateShared<Wide<A>>& shared) {
  const int t = threadIdx.x, size = int(a.grid.cell), index = first + t;
  Wide<A> values[9] = {};
  short winners = 0;
  if (index < size * size) {
    const A* corner = cell_corner<const A>(a.association, a.grid, cell);
    load_candidates<A>(a.association, corner, index, size, values);
    if (a.wins != nullptr) winners = winners_of(values);
    drop_outside(a.grid, cell, values);
  }
  store_weights(shared.values + t * kPitch, values);
  shared.winners[t] = winners;
}

// Threads 0..143 each add up one slot of one part of the tile.
template <class W>
__device__ __forceinline__ void add_part(const AggregateShared<W>& shared, W& weight, int& wins) {
  const int slot = threadIdx.x % 9, part = threadIdx.x / 9;
  if (part >= kParts) return;
  for (int i = 0; i < kTile / kParts; ++i) {
    const int pixel = i * kParts + part;
    weight += shared.values[pixel * kPitch + slot];
    wins += shared.winners[pixel] >> slot & 1;
  }
}

// Adds a run, whose first pixel has the weights at `weights`, to total[slot][j].
template <class T, Layout L, int kQuads>
__device__ __forceinline__ void add_run(Run<T, L, kQuads>& run, const Wide<T>* weights,
                                        Wide<T> (*total)[kQuad]) {
  typedef Wide<T> W;
#pragma unroll
  for (int v = 0; v < kRun<T, L>; ++v) {
    W weight[9];
    load_weights(weights + v * kPitch, weight);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      const W value = widen(run.at(v, j));
#pragma unroll
      for (int slot = 0; slot < 9; ++slot) total[slot][j] += weight[slot] * value;
    }
  }
}

// Adds up the threads' totals over their groups and stores partial[slot][channel] of the cell.
template <Layout L, int kQuads, class W>
__device__ __forceinline__ void store_partial(const Share<kQuads>& share, int channels,
                                              W (*total)[kQuad], W* board, W* partial,
                                              int64_t stride) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int pitch = share.quads() * kQuad;
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
#pragma unroll
    for (int j = 0; j < kQuad; ++j) {
      W value = total[slot][j];
      for (int offset = kWarp / 2; offset >= share.quads(); offset /= 2) {
        value += __shfl_xor_sync(kAllLanes, value, offset);
      }
      if (lane < share.quads())
        board[(warp * 9 + slot) * pitch + share.template channel<L>(j)] = value;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 9 * pitch; i += kCellThreads) {
    const int slot = i / pitch, c = i % pitch;
    if (c >= channels) continue;
    W sum = 0;
#pragma unroll
    for (int w = 0; w < kCellWarps; ++w) sum += board[(w * 9 + slot) * pitch + c];
    partial[slot * stride + c] = sum;
  }
}

// Grid: cells of all images x blocks of 64 channels; the first block of channels also does weights
// and wins. Features are of type T, the association of type A.
template <class T, class A, Layout L, int kQuads>
__global__ void __launch_bounds__(kCellThreads, cell_blocks<T>(L != Layout::kScalar))
    sp_pool_kernel(const SpPoolArgs a, const int quads) {
  typedef Wide<T> W;
  __shared__ AggregateShared<W> shared;
  const int64_t index = blockIdx.x, stride = a.channels + 1,
                first_channel = blockIdx.y * int64_t(kBlockChannels);
  const Cell cell(a.grid, blockIdx.x);
  const Share<kQuads> share(quads);
  const int size = int(a.grid.cell), area = size * size;
  const int64_t left = a.channels - first_channel;
  const int channels = int(left < kBlockChannels ? left : kBlockChannels);
  const T* corner = nullptr;
  if (channels > 0) {
    corner = cell_corner<const T>(a.features, a.grid, cell) + first_channel * a.features.channel;
  }
  W* partial = static_cast<W*>(a.partial) + index * 9 * stride;

  W total[9][kQuad] = {}, weight = 0;
  int wins = 0;
  constexpr int kPixels = kRun<T, L>;
  const int begin = share.group * kPixels, step = share.groups() * kPixels;
  const bool works = share.template channel<L>(0) < channels;
  for (int first = 0; first < area; first += kTile) {
    const int count = area - first < kTile ? area - first : kTile;
    const auto load = [&](Run<T, L, kQuads>& run, int p) {
      run.load(corner + pixel_offset(a.features, first + p, size), a.features, share, channels);
    };
    // A run is on its way while the tile is filled, and while the one before it is added.
    Run<T, L, kQuads> run, next;
    if (works && begin < count) load(run, begin);
    if (first > 0) __syncthreads();  // the last tile has been read
    fill_tile<A>(a, cell, first, shared);
    __syncthreads();
    for (int p = begin; works && p < count; p += step) {
      // Without a condition, or nvcc moves the loads behind the arithmetic.
      load(next, p + step < count ? p + step : p);
      add_run<T, L>(run, shared.values + p * kPitch, total);
      run = next;
    }
    if (blockIdx.y == 0) add_part(shared, weight, wins);
  }
  __syncthreads();  // the weights have been read: their place is taken by sums
  if (blockIdx.y == 0 && threadIdx.x < 9 * kParts) {
    shared.part_weight[threadIdx.x] = weight;
    shared.part_wins[threadIdx.x] = wins;
  }
  store_partial<L>(share, channels, total, shared.values, partial + first_channel, stride);
  if (blockIdx.y == 0 && threadIdx.x < 9) {
    W weight_sum = 0;
    int wins_sum = 0;
    for (int part = 0; part < kParts; ++part) {
      weight_sum += shared.part_weight[part * 9 + threadIdx.x];
      wins_sum += shared.part_wins[part * 9 + threadIdx.x];
    }
    partial[threadIdx.x * stride + a.channels] = weight_sum;
    if (a.wins != nullptr) a.wins[index * 9 + threadIdx.x] = wins_sum;
  }
}

// The cells around a superpixel: which they are, and whether they are in the grid.
struct Around {
  __device__ __forceinline__ Around(const Grid& grid, int position) {
    const int row = position / int(grid.columns), column = position % int(grid.columns);
#pragma unroll
    for (int slot = 0; slot < 9; ++slot) {
      const int other = neighbor(grid, row, column, slot);
      inside[slot] = other >= 0;
      cell[slot] = inside[slot] ? other : position;
    }
  }

  // Sum of what they have for the superpixel at `from` (a [cells, 9, stride] array).
  template <class W>
  __device__ __forceinline__ W gather(const W* from, int64_t stride) const {
    W value[9], total = 0;
#pragma unroll
    for (int slot = 0; slot < 9; ++slot) {
      // The cell in direction `slot` sees the superpixel in the opposite direction. Loaded without
      // a condition, so that all are on their way at once.
      value[slot] = from[(int64_t(cell[slot]) * 9 + 8 - slot) * stride];
    }
#pragma unroll
    for (int slot = 0; slot < 9; ++slot) total += inside[slot] ? value[slot] : W(0);
    return total;
  }

  int cell[9];
  bool inside[9];
};

// Grid: 8 superpixels of an image x 32 channels. A warp reads along channels; the results pass
// through shared memory, so that they are written along superpixels.
template <class W>
__global__ void __launch_bounds__(kGatherThreads) sp_pool_gather_kernel(const SpPoolArgs a) {
  __shared__ W sums[kGathered][kWarp + 1];
  const int cells = int(a.grid.cells()), tiles = int(ceil_div(cells, kGathered));
  const int64_t image = blockIdx.x / tiles, stride = a.channels + 1;
  const int first = int(blockIdx.x % tiles) * kGathered, left = cells - first;
  const int64_t first_channel = int64_t(blockIdx.y) * kWarp;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const W* partial = static_cast<const W*>(a.partial) + image * cells * 9 * stride;
  const W area = W(a.grid.cell * a.grid.cell);

  if (warp < left) {
    const Around around(a.grid, first + warp);
    const int64_t c = first_channel + lane;
    const W sum = around.gather(partial + (c < a.channels ? c : a.channels), stride);
    const W weight = around.gather(partial + a.channels, stride) / area;
    sums[warp][lane] = sum / (a.normalize ? (weight + W(1e-8)) * area : area);
    if (blockIdx.y == 0 && lane == 0) {
      const int64_t superpixel = image * cells + first + warp;
      static_cast<W*>(a.weight)[superpixel] = weight;
      if (a.wins != nullptr) {
        const int wins = around.gather(a.wins + image * cells * 9, 1);
        static_cast<W*>(a.size)[superpixel] = W(wins) / area;
      }
    }
  }
  __syncthreads();
  const int position = threadIdx.x % kGathered, c = threadIdx.x / kGathered;
  if (position >= left || first_channel + c >= a.channels) return;
  static_cast<W*>(a.sums)[(image * a.channels + first_channel + c) * cells + first + position] =
      sums[position][c];
}

}  // namespace disco_fast
