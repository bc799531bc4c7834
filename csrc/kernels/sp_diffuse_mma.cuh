// SP-Diffusion on tensor cores, for 16-bit types: weights [pixels, 9] times tokens [9, channels],
// or the same turned over, so that a lane's sums are neighbors in memory. Tokens are of 32 bits:
// each is the sum of two numbers that tensor cores hold, which leaves an error of 2^-21.
#pragma once

#include "cells_mma.cuh"
#include "sp_diffuse.cuh"

namespace disco_fast {

// How values are written: kPlanar, 8 pixels of a row at once; kPacked, 8 channels of a pixel.
enum class Spread { kPlanar, kPacked };

constexpr int kTokenPitch = kBlockChannels + 8;  // the slots of a warp lie in different banks

struct SpreadShared {
  alignas(16) float weights[kMmaWarps][kWarp / kGroup][kGroup * kPitch + kGroup];
  float tokens[9][kTokenPitch];
};

// What a lane has of the nine weights of eight pixels, or of the nine tokens' channels: for its row
// those of slots `part` and `part` + 4, and of slot 8.
struct WeightTile {
  float of_slots[2], last;
};
struct TokenTile {
  float high[2], low[2], last;  // last: the high part in part 0, the low one in part 1
};

__device__ __forceinline__ float high_bits(float value) {
  return __uint_as_float(__float_as_uint(value) & 0xffffe000u);
}
__device__ __forceinline__ float low_bits(float value) {
  const float high = high_bits(value);
  return value == high ? 0.0f : value - high;  // also of infinity
}

// The tile of channels or pixels that operand `row` of tile `i` stands for, so that a lane's sums,
// columns 2 * part and 2 * part + 1 of four tiles, are eight neighbors.
__device__ __forceinline__ int neighbor_of(int i, int row) {
  return i / 4 * 32 + row / 2 * 8 + i % 4 * 2 + row % 2;
}

template <Spread S>
__device__ __forceinline__ void read_tokens(const SpreadShared& shared, const MmaPlace& place,
                                            TokenTile (&token)[kTiles]) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    const int c = S == Spread::kPlanar ? i * 8 + place.row : neighbor_of(i, place.row);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float value = shared.tokens[place.part + 4 * half][c];
      token[i].high[half] = high_bits(value);
      token[i].low[half] = low_bits(value);
    }
    const float value = shared.tokens[8][c];
    token[i].last = place.part == 0 ? high_bits(value) : place.part == 1 ? low_bits(value) : 0.0f;
  }
}

template <Spread S, int kGroups>
__device__ __forceinline__ void read_weights(
    const float (&weights)[kGroups][kGroup * kPitch + kGroup], const MmaPlace& place,
    WeightTile (&weight)[kGroups]) {
#pragma unroll
  for (int i = 0; i < kGroups; ++i) {
    const int pixel = S == Spread::kPlanar ? neighbor_of(i, place.row) : i * 8 + place.row;
    const float* from = weights[pixel / kGroup] + pixel % kGroup * kPitch;
    weight[i].of_slots[0] = from[place.part];
    weight[i].of_slots[1] = from[place.part + 4];
    weight[i].last = place.part < 2 ? from[8] : 0.0f;
  }
}

// Two tiles of eight rows each times one of eight columns.
__device__ __forceinline__ void mix(float (&sum)[4], const TokenTile& first,
                                    const TokenTile& second, const WeightTile& weight) {
  multiply_tf32(sum, {first.high[0], second.high[0], first.high[1], second.high[1]},
                {weight.of_slots[0], weight.of_slots[1]});
  multiply_tf32(sum, {first.low[0], second.low[0], first.low[1], second.low[1]},
                {weight.of_slots[0], weight.of_slots[1]});
  multiply_tf32(sum, {first.last, second.last, 0.0f, 0.0f}, {weight.last, 0.0f});
}
__device__ __forceinline__ void mix(float (&sum)[4], const WeightTile& first,
                                    const WeightTile& second, const TokenTile& token) {
  const float weights[4] = {first.of_slots[0], second.of_slots[0], first.of_slots[1],
                            second.of_slots[1]};
  multiply_tf32(sum, weights, {token.high[0], token.high[1]});
  multiply_tf32(sum, weights, {token.low[0], token.low[1]});
  multiply_tf32(sum, {first.last, second.last, 0.0f, 0.0f}, {token.last, 0.0f});
}

// Eight neighbors of the sums' row `row` (half 0) or `row` + 8, of tiles first..first + 3.
template <class T, int kCount>
__device__ __forceinline__ Group group_of(const float (&sum)[kCount][4], int first, int half) {
  Group group;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    group.value[i] = pack_pair<T>(sum[first + i][2 * half], sum[first + i][2 * half + 1]);
  }
  return group;
}

// The candidates' tokens to shared memory, a channel for each of 64 threads; those outside the grid
// are zero.
__device__ __forceinline__ void load_tokens(const SpDiffuseArgs& a, const MmaCell& cell,
                                            unsigned inside, int first_channel,
                                            float (&tokens)[9][kTokenPitch]) {
  const int c = threadIdx.x;
  if (c >= kBlockChannels) return;
  const float* from = at<const float>(
      a.tokens, blockIdx.z, first_channel + min(c, cell.channels - 1), cell.row, cell.column);
  // Loaded without a condition, others in place of those outside, so that all are on their way.
  const int64_t row = a.tokens.row, column = a.tokens.column;
  const int64_t rows[3] = {inside & 0002 ? -row : 0, 0, inside & 0200 ? row : 0};
  const int64_t columns[3] = {inside & 0010 ? -column : 0, 0, inside & 0040 ? column : 0};
  float values[9];
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) values[slot] = from[rows[slot / 3] + columns[slot % 3]];
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) tokens[slot][c] = inside >> slot & 1 ? values[slot] : 0.0f;
}

// The leading channels of a pixel, eight at a time.
template <class T>
__device__ __forceinline__ void write_lead_groups(const SpDiffuseArgs& a, T value, T* to) {
  Group group = {{pack_pair<T>(widen(value), 0.0f)}};
#pragma unroll 1
  for (int c = 0; c < int(a.lead_channels); c += kGroup) {
    *reinterpret_cast<Group*>(to + c) = group;
    group = {};
  }
}

// The first 64 channels also write the leading ones.
template <class T, Spread S>
__global__ void __launch_bounds__(kMmaThreads, 4)
    sp_diffuse_mma_kernel(const SpDiffuseArgs a, const int first_channel) {
  if constexpr (kTensorCores) {
    __shared__ SpreadShared shared;
    const MmaCell cell(a.grid, a.channels, first_channel);
    const MmaPlace place;
    const unsigned t = threadIdx.x, warp = t / kWarp, lane = t % kWarp, area = cell.area();
    const unsigned inside = cell.inside(a.grid);
    const bool leads = a.lead_channels > 0 && first_channel == 0;
    const T* association = cell.corner<const T>(a.association);
    const T* lead = leads ? cell.corner<const T>(a.lead) : nullptr;
    T* corner = cell.corner<T>(a.features);
    T* out = corner + uint64_t(unsigned(first_channel) + unsigned(a.lead_channels)) *
                          unsigned(a.features.channel);

    uint16_t bits[9];
    const unsigned begin = warp * kWarp;
    if (begin < area) load_bits(a.association, cell, association, begin + lane, bits);
    load_tokens(a, cell, inside, first_channel, shared.tokens);
    __syncthreads();
    TokenTile token[kTiles];
    read_tokens<S>(shared, place, token);

    for (unsigned pixel = begin; pixel < area; pixel += kMmaThreads) {
      float* row = shared.weights[warp][lane / kGroup] + lane % kGroup * kPitch;
      float values[9];
#pragma unroll
      for (int slot = 0; slot < 9; ++slot) {
        values[slot] = inside >> slot & 1 ? widen_bits<T>(bits[slot]) : 0.0f;
      }
      store_weights(row, values);
      const unsigned following = pixel + kMmaThreads;
      if (following < area) load_bits(a.association, cell, association, following + lane, bits);
      if (leads) {
        const T value = lead[cell.offset(a.lead, pixel + lane)];
        T* to = corner + cell.offset(a.features, pixel + lane);
        if constexpr (S == Spread::kPacked) {
          write_lead_groups(a, value, to);
        } else {
          write_lead(a, value, to);
        }
      }
      __syncwarp();
      WeightTile weight[kWarp / kGroup];
      read_weights<S>(shared.weights[warp], place, weight);
      if constexpr (S == Spread::kPlanar) {
        T* to = out + cell.offset(a.features, pixel + place.part * kGroup) +
                uint64_t(unsigned(place.row)) * unsigned(a.features.channel);
#pragma unroll
        for (int m = 0; m < kTiles; m += 2) {
          float sum[4][4] = {};
#pragma unroll
          for (int i = 0; i < 4; ++i) mix(sum[i], token[m], token[m + 1], weight[i]);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            if ((m + half) * 8 < cell.channels) {
              *reinterpret_cast<Group*>(to) = group_of<T>(sum, 0, half);
            }
            to += uint64_t(unsigned(a.features.channel)) * 8;
          }
        }
      } else {
#pragma unroll
        for (int m = 0; m < kWarp / kGroup; m += 2) {
          float sum[kTiles][4] = {};
#pragma unroll
          for (int i = 0; i < kTiles; ++i) mix(sum[i], weight[m], weight[m + 1], token[i]);
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const unsigned p = (m + half) * 8 + place.row;
            T* to = out + cell.offset(a.features, pixel + p) + place.part * kGroup;
#pragma unroll
            for (int i = 0; i < kTiles; i += 4) {
              if (i * 8 + place.part * kGroup < cell.channels) {
                *reinterpret_cast<Group*>(to + i * 8) = group_of<T>(sum, i, half);
              }
            }
          }
        }
      }
      __syncwarp();  // the weights have been read
    }
  }
}

}  // namespace disco_fast
