// A cell's sums for its nine candidates on tensor cores, for 16-bit types: weights [9, pixels]
// times features [pixels, channels]. Products are exact and sums of 32 bits, as without tensor
// cores.
//
// In what order the pixels are added up does not matter as long as weights and features have the
// same. So what a lane loads, eight neighbors at a time, is what it multiplies: features never pass
// through shared memory. The next pixels are on their way meanwhile.
#pragma once

#include "cells_mma.cuh"

namespace disco_fast {

constexpr int kBoardPitch = kBlockChannels + 4;  // sums, then that of the weights

// What a warp has on its way: the features of 32 pixels, and the candidates of one for each lane.
template <class T, Layout L>
struct PoolStep {
  Group features[kGroup];  // planar: a channel each, of 8 pixels; else the other way around
  uint16_t bits[9];

  // `from` is the lane's first channel in the cell's first pixel; `pixel` is the warp's first.
  __device__ __forceinline__ void load(const SpPoolArgs& a, const MmaCell& cell, const T* from,
                                       const T* association, unsigned pixel,
                                       const MmaPlace& place) {
    from += cell.offset(a.features, pixel + place.part * kGroup);
    const unsigned stride = unsigned(L == Layout::kPlanar ? a.features.channel : a.features.column);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      features[i] = *reinterpret_cast<const Group*>(from);
      from += stride;
    }
    load_bits(a.association, cell, association, pixel + threadIdx.x % kWarp, bits);
  }

  // Channel `tile` of the lane's eight in its pixels 2 * pair and 2 * pair + 1.
  __device__ __forceinline__ unsigned at(int tile, int pair) const {
    if (L == Layout::kPlanar) return features[tile].value[pair];
    return __byte_perm(features[2 * pair].value[tile / 2], features[2 * pair + 1].value[tile / 2],
                       tile % 2 ? 0x7632 : 0x5410);
  }
};

struct PoolShared {
  alignas(16) uint16_t weights[kMmaWarps][9][kWarp];
  alignas(16) float sums[kMmaWarps][9][kBoardPitch];
  int wins[kMmaWarps][9];
};

// How many of the warp's pixels join candidate `lane`: all that tie for the maximum, none where one
// is NaN.
template <class T>
__device__ __forceinline__ int superpixel_size_count(const uint16_t (&bits)[9]) {
  float values[9], best = -INFINITY;
  bool ordered = true;
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
    values[slot] = widen_bits<T>(bits[slot]);
    ordered = ordered && values[slot] == values[slot];
    best = fmaxf(best, values[slot]);
  }
  unsigned mine = 0;
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
    const unsigned votes = __ballot_sync(kAllLanes, ordered && values[slot] == best);
    if (int(threadIdx.x) % kWarp == slot) mine = votes;
  }
  return __popc(mine);
}

// The warp's sums of candidate `row` and, in the first row's lanes, of candidate 8. Column c of
// tile i is channel 8 * c + i; the tile after the last has the weights'.
__device__ __forceinline__ void post_sums(const float (&sum)[kTiles + 1][4], const MmaPlace& place,
                                          float (*board)[kBoardPitch]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    if (half == 1 && place.row > 0) continue;
    float* to = board[half ? 8 : place.row];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
#pragma unroll
      for (int i = 0; i < kTiles; i += kQuad) {
        const Pack<float, kQuad> pack = {{sum[i][2 * half + j], sum[i + 1][2 * half + j],
                                          sum[i + 2][2 * half + j], sum[i + 3][2 * half + j]}};
        store_pack(to + (2 * place.part + j) * kTiles + i, pack);
      }
    }
    if (place.part == 0) to[kBlockChannels] = sum[kTiles][2 * half];
  }
}

// The first 64 channels also do weights and wins.
template <class T, Layout L>
__global__ void __launch_bounds__(kMmaThreads, 3)
    sp_pool_mma_kernel(const SpPoolArgs a, const int first_channel) {
  if constexpr (kTensorCores) {
    __shared__ PoolShared shared;
    const MmaCell cell(a.grid, a.channels, first_channel);
    const MmaPlace place;
    const unsigned t = threadIdx.x, warp = t / kWarp, lane = t % kWarp, area = cell.area();
    const bool weighs = first_channel == 0, counts = weighs && a.wins != nullptr;
    const T* association = cell.corner<const T>(a.association);
    // Lanes beyond the channels add up others, which are not stored.
    const int group = place.row * kGroup < cell.channels ? place.row * kGroup : 0;
    const T* from = cell.corner<const T>(a.features) +
                    uint64_t(unsigned(first_channel + group)) * unsigned(a.features.channel);
    const unsigned inside = cell.inside(a.grid);
    const bool first_inside = inside >> place.row & 1, last_inside = place.row == 0 && inside >> 8;
    const unsigned one = pack_pair<T>(1.0f, 1.0f), ones[2] = {one, one};

    float sum[kTiles + 1][4] = {};
    int wins = 0;
    const auto add = [&](const PoolStep<T, L>& step) {
      uint16_t (*weights)[kWarp] = shared.weights[warp];
#pragma unroll
      for (int slot = 0; slot < 9; ++slot) weights[slot][lane] = step.bits[slot];
      if (counts) wins += superpixel_size_count<T>(step.bits);
      __syncwarp();
      Group first = {}, last = {};  // of candidates `row` and 8
      if (first_inside) {
        first = *reinterpret_cast<Group*>(&weights[place.row][place.part * kGroup]);
      }
      if (last_inside) last = *reinterpret_cast<Group*>(&weights[8][place.part * kGroup]);
      __syncwarp();  // the weights have been read
#pragma unroll
      for (int pair = 0; pair < 4; pair += 2) {
        const unsigned weight[4] = {first.value[pair], last.value[pair], first.value[pair + 1],
                                    last.value[pair + 1]};
#pragma unroll
        for (int tile = 0; tile < kTiles; ++tile) {
          const unsigned feature[2] = {step.at(tile, pair), step.at(tile, pair + 1)};
          multiply_halves<T>(sum[tile], weight, feature);
        }
        multiply_halves<T>(sum[kTiles], weight, ones);
      }
    };
    const unsigned begin = warp * kWarp;
    const auto load = [&](PoolStep<T, L>& step, unsigned pixel) {
      if (pixel < area) step.load(a, cell, from, association, pixel, place);
    };
    PoolStep<T, L> even, odd;
    load(even, begin);
    for (unsigned pixel = begin; pixel < area; pixel += 2 * kMmaThreads) {
      load(odd, pixel + kMmaThreads);
      add(even);
      if (pixel + kMmaThreads >= area) break;
      load(even, pixel + 2 * kMmaThreads);
      add(odd);
    }
    post_sums(sum, place, shared.sums[warp]);
    if (lane < 9) shared.wins[warp][lane] = wins;
    __syncthreads();

    const int64_t stride = a.channels + 1;
    float* partial = static_cast<float*>(a.partial) + cell.index(a.grid) * 9 * stride;
    const auto total = [&](int slot, int column) {
      float value = 0;
#pragma unroll
      for (int w = 0; w < kMmaWarps; ++w) value += shared.sums[w][slot][column];
      return value;
    };
    const int c = t % kBlockChannels;
    if (c < cell.channels) {
      constexpr int kRows = kMmaThreads / kBlockChannels;
      float* to = partial + (t / kBlockChannels) * stride + first_channel + c;
#pragma unroll
      for (int slot = 0; slot < 9; slot += kRows, to += kRows * stride) {
        if (slot + t / kBlockChannels < 9) *to = total(slot + t / kBlockChannels, c);
      }
    }
    if (!weighs || t >= 9) return;
    partial[t * stride + a.channels] = total(t, kBlockChannels);
    if (counts) {
      wins = 0;
      for (int w = 0; w < kMmaWarps; ++w) wins += shared.wins[w][t];
      a.wins[cell.index(a.grid) * 9 + t] = wins;
    }
  }
}

}  // namespace disco_fast
