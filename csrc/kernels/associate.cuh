// The association map from the logits of a convolution: bias and softmax over the nine candidates,
// from channels-last to planar in one pass. A thread has one pixel.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kAssociateThreads = 256;

template <class W>
__device__ __forceinline__ W exponential(W x) {
  if constexpr (sizeof(W) == 8) {
    return exp(x);
  } else {
    return expf(x);
  }
}

// Grid: pixels x images. kPacked: a pixel's logits begin at a multiple of 16 bytes and fill as
// many packs as nine of them take.
template <class T, bool kPacked>
__global__ void __launch_bounds__(kAssociateThreads) associate_kernel(const AssociateArgs a) {
  typedef Wide<T> W;
  constexpr int kCandidates = 9, kWidth = kPacked ? 16 / int(sizeof(T)) : 1;
  constexpr int kPacks = (kCandidates + kWidth - 1) / kWidth;
  const int64_t pixel = blockIdx.x * int64_t(kAssociateThreads) + threadIdx.x;
  if (pixel >= a.pixels) return;
  const int64_t image = blockIdx.y;
  const T* logits = static_cast<const T*>(a.logits) + (image * a.pixels + pixel) * a.channels;
  Pack<T, kWidth> packs[kPacks];
#pragma unroll
  for (int i = 0; i < kPacks; ++i) {
    packs[i] = load_pack<kWidth>(logits + i * kWidth);
  }
  W value[kCandidates], most = 0, sum = 0;
#pragma unroll
  for (int i = 0; i < kCandidates; ++i) {
    const W bias = a.bias == nullptr ? W(0) : static_cast<const W*>(a.bias)[i];
    value[i] = widen(packs[i / kWidth].value[i % kWidth]) + bias;
    most = i == 0 || value[i] > most ? value[i] : most;
  }
#pragma unroll
  for (int i = 0; i < kCandidates; ++i) {
    value[i] = exponential(value[i] - most);
    sum += value[i];
  }
  const W share = 1 / sum;
  W* out = static_cast<W*>(a.association) + image * kCandidates * a.pixels + pixel;
#pragma unroll
  for (int i = 0; i < kCandidates; ++i) out[i * a.pixels] = value[i] * share;
}

}  // namespace disco_fast
