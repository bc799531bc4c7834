// What every kernel uses: element types, packed loads and stores, warp reductions, shared memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>

#include "../args.h"

namespace disco_fast {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
struct WideOf {
  typedef float type;
};
template <>
struct WideOf<double> {
  typedef double type;
};
// What a T is computed in.
template <class T>
using Wide = typename WideOf<T>::type;

__device__ __forceinline__ float widen(float value) { return value; }
__device__ __forceinline__ double widen(double value) { return value; }
__device__ __forceinline__ float widen(__half value) { return __half2float(value); }
__device__ __forceinline__ float widen(__nv_bfloat16 value) { return __bfloat162float(value); }

template <class T>
__device__ __forceinline__ T narrow(Wide<T> value) {
  return value;
}
template <>
__device__ __forceinline__ __half narrow<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 narrow<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// N neighboring elements, moved in as few instructions as their alignment allows (16 bytes each).
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T value[N];
};

template <int N, class T>
__device__ __forceinline__ Pack<T, N> load_pack(const T* from) {
  return *reinterpret_cast<const Pack<T, N>*>(from);
}

template <int N, class T>
__device__ __forceinline__ void store_pack(T* to, const Pack<T, N>& pack) {
  *reinterpret_cast<Pack<T, N>*>(to) = pack;
}

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

// The dynamic shared memory of the block.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#if defined(DISCO_FAST_EMULATED)
  return reinterpret_cast<T*>(emu::dynamic_shared_memory());
#else
  extern __shared__ __align__(16) unsigned char memory[];
  return reinterpret_cast<T*>(memory);
#endif
}

// Sum over the lanes of a warp, in halves; every lane gets it.
template <class W>
__device__ __forceinline__ W warp_sum(W value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

// A candidate of a search for the best: the largest key, of equal keys the lowest index.
template <class W>
struct Best {
  W key;
  int64_t index;

  // Without a jump: what lanes disagree on would take both ways, ten times for a block.
  __device__ __forceinline__ bool beats(const Best& other) const {
    return bool(int(key > other.key) | (int(key == other.key) & int(index < other.index)));
  }
};

template <class W>
__device__ __forceinline__ Best<W> warp_best(Best<W> mine) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const Best<W> other = {__shfl_xor_sync(kAllLanes, mine.key, offset),
                           __shfl_xor_sync(kAllLanes, mine.index, offset)};
    const bool wins = other.beats(mine);
    mine.key = wins ? other.key : mine.key;
    mine.index = wins ? other.index : mine.index;
  }
  return mine;
}

// The best of a block, for every thread. `board` holds one candidate per warp; the block must have
// passed a barrier since `board` was last read.
template <class W>
__device__ __forceinline__ Best<W> block_best(Best<W> mine, Best<W>* board) {
  const int lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  mine = warp_best(mine);
  if (lane == 0) board[threadIdx.x / kWarp] = mine;
  __syncthreads();
  mine = board[lane < warps ? lane : 0];
  return warp_best(mine);
}

// Waits for all blocks of an image. Co-residency is the launcher's business.
__device__ __forceinline__ void wait_for_image(unsigned* arrived, unsigned wanted) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (atomicAdd(arrived, 0u) < wanted) __nanosleep(32);
    __threadfence();
  }
  __syncthreads();
}

}  // namespace disco_fast
