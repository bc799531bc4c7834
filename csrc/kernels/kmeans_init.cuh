// First centers of K-Means. The generator is a hash of (seed, draw, point), the same as in
// reference/, so that a draw needs no state and no order.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kInitThreads = 512;  // at most; no more than points, but whole warps
constexpr int kInitWarps = kInitThreads / kWarp;

__host__ __device__ constexpr uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// Word i of a draw.
class RandomWords {
 public:
  __device__ RandomWords(int64_t seed, int64_t draw)
      : key_(mix(mix(uint32_t(seed) ^ mix(uint32_t(uint64_t(seed) >> 32) + 0x9e3779b9u)) ^
                 (uint32_t(draw) + 0x85ebca6bu))) {}
  __device__ uint32_t operator[](int64_t index) const { return mix(key_ ^ uint32_t(index)); }

 private:
  uint32_t key_;
};

// The `count` smallest words of the first draw, in order. Words of different points differ, for the
// hash is a bijection.
__device__ __forceinline__ void init_random(const KMeansInitArgs& a, int count, int64_t* init,
                                            Best<int64_t>* board) {
  const RandomWords words(a.seed, 0);
  int64_t previous = -1;  // the last word taken
  for (int k = 0; k < count; ++k) {
    Best<int64_t> mine = {-(int64_t(1) << 32), 0};
    for (int64_t p = threadIdx.x; p < a.points; p += int(blockDim.x)) {
      const Best<int64_t> candidate = {-int64_t(words[p]), p};
      if (-candidate.key > previous && candidate.beats(mine)) mine = candidate;
    }
    const Best<int64_t> smallest = block_best(mine, board);
    __syncthreads();  // the board has been read
    previous = -smallest.key;
    if (threadIdx.x == 0) init[k] = smallest.index;
  }
}

constexpr int kRounds = 4;  // points of four neighboring lanes

// Squared distances of `kRounds` points to one, by four neighboring lanes, each of which takes
// `kPack` dimensions at a time; each of them gets all. `dims` is a multiple of `kPack`.
template <int kPack, class W>
__device__ __forceinline__ void distances_by_four(const W* const (&points)[kRounds], const W* to,
                                                  int dims, W (&total)[kRounds]) {
#pragma unroll 2  // eight loads on their way, without spilled registers
  for (int d = threadIdx.x % 4 * kPack; d < dims; d += 4 * kPack) {
    const Pack<W, kPack> target = load_pack<kPack>(to + d);
#pragma unroll
    for (int round = 0; round < kRounds; ++round) {
      const Pack<W, kPack> from = load_pack<kPack>(points[round] + d);
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const W difference = from.value[i] - target.value[i];
        total[round] = fma(difference, difference, total[round]);
      }
    }
  }
#pragma unroll
  for (int round = 0; round < kRounds; ++round) {
    total[round] += __shfl_xor_sync(kAllLanes, total[round], 1);
    total[round] += __shfl_xor_sync(kAllLanes, total[round], 2);
  }
}

// Each further center is drawn with a chance proportional to the squared distance to the nearest so
// far: the winner of an exponential race, -log(u) / d^2, smallest first. A warp takes 32 points:
// four lanes work out distances, and then each lane has a point of its own in the race.
template <int kPack, class W>
__device__ __forceinline__ void init_plus_plus(const KMeansInitArgs& a, int64_t image,
                                               int64_t* init, Best<double>* board) {
  const W* data = static_cast<const W*>(a.data) + image * a.points * a.dims;
  W* nearest = static_cast<W*>(a.nearest) + image * a.points;
  const int lane = threadIdx.x % kWarp, dims = int(a.dims);
  int64_t latest = init[0];
  for (int draw = 1; draw < int(a.clusters); ++draw) {
    const RandomWords words(a.seed, draw);
    Best<double> mine = {-double(INFINITY), a.points};
    for (int64_t base = threadIdx.x / kWarp * kWarp; base < a.points; base += int(blockDim.x)) {
      const W* rows[kRounds];
      W distances[kRounds] = {}, distance = 0;
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        const int64_t p = base + round * 8 + lane / 4;
        rows[round] = data + (p < a.points ? p : base) * a.dims;
      }
      distances_by_four<kPack>(rows, data + latest * a.dims, dims, distances);
#pragma unroll
      for (int round = 0; round < kRounds; ++round) {
        if (lane % 4 == round) distance = distances[round];
      }
      const int64_t p = base + lane % 4 * 8 + lane / 4;
      if (p >= a.points) continue;
      W least = draw == 1 || distance < nearest[p] ? distance : nearest[p];
      if (p == latest) least = -1;  // taken; stays the least
      nearest[p] = least;
      if (least < 0) continue;
      const double uniform = (double(words[p]) + 1) * (1.0 / 4294967296.0);
      // Finite even where d = 0, so that no point is taken twice.
      const double race = -log(uniform) / (double(least) > 1e-30 ? double(least) : 1e-30);
      const Best<double> candidate = {-race, p};
      if (candidate.beats(mine)) mine = candidate;
    }
    latest = block_best(mine, board).index;
    __syncthreads();  // the board has been read
    latest = latest < a.points ? latest : 0;
    if (threadIdx.x == 0) init[draw] = latest;
  }
}

// Grid: images.
// One block of a multiprocessor is enough: with more, nvcc would spill registers.
template <class W, int kPack>
__global__ void __launch_bounds__(kInitThreads, 1) kmeans_init_kernel(const KMeansInitArgs a) {
  __shared__ Best<int64_t> words_board[kInitWarps];
  __shared__ Best<double> race_board[kInitWarps];
  int64_t* init = a.init + int64_t(blockIdx.x) * a.clusters;
  if (!a.plus_plus) {
    init_random(a, int(a.clusters), init, words_board);
    return;
  }
  init_random(a, 1, init, words_board);
  __syncthreads();  // thread 0 has written the first center
  init_plus_plus<kPack, W>(a, blockIdx.x, init, race_board);
}

}  // namespace disco_fast
