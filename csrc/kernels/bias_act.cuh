// What follows a convolution, in one pass: bias, residual, activation, scale and shift. A thread
// moves 16 bytes at a time where it can; where channels are adjacent it stays with its own, whose
// parameters it keeps in registers.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kBiasActThreads = 256;

// How a tensor [rows, channels, inner] is moved: packs of channels (inner is 1), packs of a plane,
// or one by one.
enum class ActLayout { kChannels, kPlanes, kSingle };

// What a channel's values go through.
template <class W>
struct Pointwise {
  __device__ __forceinline__ Pointwise() = default;
  __device__ __forceinline__ Pointwise(const BiasActArgs& a, unsigned channel)
      : bias(of(a.bias, channel, 0)),
        scale(of(a.scale, channel, 1)),
        shift(of(a.shift, channel, 0)) {}

  __device__ __forceinline__ W operator()(W value, W residual, W slope) const {
    value = value + bias + residual;
    const W low = slope == W(0) ? W(0) : value * slope;  // so that minus infinity becomes 0
    return (value < W(0) ? low : value) * scale + shift;
  }

  __device__ __forceinline__ static W of(const void* row, unsigned channel, int missing) {
    return row == nullptr ? W(missing) : static_cast<const W*>(row)[channel];
  }

  W bias, scale, shift;
};

template <class T, ActLayout L>
constexpr int kActWidth = L == ActLayout::kSingle ? 1 : 16 / int(sizeof(T));

// Grid: any; with kChannels as many threads as make whole rows of packs. `count` packs in all.
template <class T, ActLayout L>
__global__ void __launch_bounds__(kBiasActThreads)
    bias_act_kernel(const BiasActArgs a, const int64_t count, const int64_t step) {
  typedef Wide<T> W;
  constexpr int kWidth = kActWidth<T, L>, kParameters = L == ActLayout::kChannels ? kWidth : 1;
  const int64_t first = blockIdx.x * int64_t(kBiasActThreads) + threadIdx.x;
  if (first >= step) return;
  const W slope = W(a.slope);
  Pointwise<W> act[kParameters];
  if (L == ActLayout::kChannels) {
    const unsigned channel = unsigned(first) % unsigned(a.channels / kWidth) * kWidth;
#pragma unroll
    for (int i = 0; i < kParameters; ++i) act[i] = Pointwise<W>(a, channel + i);
  }
#pragma unroll 4
  for (int64_t i = first; i < count; i += step) {
    if (L != ActLayout::kChannels) {
      act[0] = Pointwise<W>(a, unsigned(i * kWidth / a.inner % a.channels));
    }
    Pack<T, kWidth> pack = load_pack<kWidth>(static_cast<const T*>(a.x) + i * kWidth), other = {};
    if (a.residual != nullptr) {
      other = load_pack<kWidth>(static_cast<const T*>(a.residual) + i * kWidth);
    }
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const W residual = a.residual != nullptr ? widen(other.value[j]) : W(0);
      pack.value[j] = narrow<T>(act[j % kParameters](widen(pack.value[j]), residual, slope));
    }
    store_pack(static_cast<T*>(a.out) + i * kWidth, pack);
  }
}

}  // namespace disco_fast
