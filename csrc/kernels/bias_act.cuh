// What follows a convolution, in one pass: bias, residual, activation, scale and shift, and another
// tensor's channels in front. A thread moves 16 bytes at a time where it can; where channels are
// adjacent it stays with its own, whose parameters it keeps in registers.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kBiasActThreads = 256;

// How a tensor [rows, channels, inner] is moved: packs of channels (inner is 1), packs of a plane,
// or one by one.
enum class ActLayout { kChannels, kPlanes, kSingle };

template <class T, ActLayout L>
constexpr int kActWidth = L == ActLayout::kSingle ? 1 : 16 / int(sizeof(T));

// Packs of a thread. Those of planes take more registers, for each has parameters of its own.
template <ActLayout L>
constexpr int kActPacks = L == ActLayout::kChannels ? 4 : 2;

// What the values of N adjacent channels go through.
template <class W, int N>
struct Pointwise {
  __device__ __forceinline__ Pointwise() = default;
  template <class Args>
  __device__ __forceinline__ Pointwise(const Args& a, unsigned channel) {
    load(a.bias, channel, W(0), bias);
    load(a.scale, channel, W(1), scale);
    load(a.shift, channel, W(0), shift);
  }

  __device__ __forceinline__ W operator()(int i, W value, W residual, W slope) const {
    value = value + bias[i] + residual;
    const W low = slope == W(0) ? W(0) : value * slope;  // so that minus infinity becomes 0
    return (value < W(0) ? low : value) * scale[i] + shift[i];
  }

  __device__ __forceinline__ static void load(const void* row, unsigned channel, W missing,
                                              W (&to)[N]) {
    constexpr int kEach = N == 1 ? 1 : 16 / int(sizeof(W));
#pragma unroll
    for (int i = 0; i < N; i += kEach) {
      Pack<W, kEach> pack;
#pragma unroll
      for (int j = 0; j < kEach; ++j) pack.value[j] = missing;
      if (row != nullptr) pack = load_pack<kEach>(static_cast<const W*>(row) + channel + i);
#pragma unroll
      for (int j = 0; j < kEach; ++j) to[i + j] = pack.value[j];
    }
  }

  W bias[N], scale[N], shift[N];
};

// A pack as it is in memory: in words, for nvcc takes halves apart where they are loaded and so
// waits for each load before the next.
template <class T, int N, bool kWhole = sizeof(T) * N % 4 == 0>
struct InWords {
  typedef Pack<unsigned, int(sizeof(T)) * N / 4> Type;
};
template <class T, int N>
struct InWords<T, N, false> {
  typedef Pack<T, N> Type;
};
template <class T, int N>
using Words = typename InWords<T, N>::Type;

template <class T, int N>
__device__ __forceinline__ Words<T, N> load_words(const void* tensor, int64_t at) {
  return *reinterpret_cast<const Words<T, N>*>(static_cast<const T*>(tensor) + at);
}

// Where a pack of the result comes from.
struct ActSource {
  __device__ __forceinline__ ActSource() = default;

  // Args:
  //   row: of the result.
  //   channel: its channel in the result.
  //   rest: its place in the plane.
  __device__ __forceinline__ ActSource(const BiasActArgs& a, int64_t row, unsigned channel,
                                       int64_t rest)
      : is_lead(channel < unsigned(a.lead_channels)),
        channel(is_lead ? channel : channel - unsigned(a.lead_channels)),
        channels(unsigned(is_lead ? a.lead_channels : a.channels)),
        at((row * channels + this->channel) * a.inner + rest) {}

  bool is_lead;
  unsigned channel, channels;
  int64_t at;  // values
};

// Grid: any; with kChannels as many threads as make whole rows of packs. `count` packs in all, of
// which a thread has every step-th one, kActPacks<L> at most; step is below 2^31.
template <class T, ActLayout L, bool kResidual>
__global__ void __launch_bounds__(kBiasActThreads)
    bias_act_kernel(const BiasActArgs a, const int64_t count, const int64_t step) {
  typedef Wide<T> W;
  constexpr int kWidth = kActWidth<T, L>, kParameters = L == ActLayout::kChannels ? kWidth : 1;
  const int64_t first = blockIdx.x * int64_t(kBiasActThreads) + threadIdx.x;
  if (first >= step) return;
  const W slope = W(a.slope);
  const unsigned channels = unsigned(a.lead_channels + a.channels);
  const unsigned packs = L == ActLayout::kChannels ? channels / kWidth : 1;  // of a row
  const ActSource own(a, unsigned(first) / packs, unsigned(first) % packs * kWidth, 0);
  Pointwise<W, kParameters> act;
  if (L == ActLayout::kChannels && !own.is_lead) act = Pointwise<W, kParameters>(a, own.channel);
  // All loads come before the first store, behind which nvcc leaves those that stand behind it: a
  // thread with one load in the air at a time reaches two thirds of the bandwidth.
  Words<T, kWidth> words[kActPacks<L>], others[kActPacks<L>] = {};
  ActSource source[kActPacks<L>];
#pragma unroll
  for (int k = 0; k < kActPacks<L>; ++k) {
    const int64_t i = first + k * step;
    if (i >= count) break;
    if (L == ActLayout::kChannels) {
      source[k] = own;
      source[k].at += int64_t(unsigned(step) / packs * k) * own.channels;
    } else {
      const int64_t plane = i * kWidth / a.inner, row = plane / channels;
      source[k] = ActSource(a, row, unsigned(plane - row * channels), i * kWidth - plane * a.inner);
    }
    const ActSource& from = source[k];
    words[k] = load_words<T, kWidth>(from.is_lead ? a.lead : a.x, from.at);
    if (kResidual && !from.is_lead) {
      others[k] = load_words<T, kWidth>(a.residual, from.at);
    }
  }
#pragma unroll
  for (int k = 0; k < kActPacks<L>; ++k) {
    const int64_t i = first + k * step;
    if (i >= count) break;
    Pack<T, kWidth> pack, other;
    memcpy(&pack, &words[k], sizeof pack);
    memcpy(&other, &others[k], sizeof other);
    if (!source[k].is_lead) {
      if (L != ActLayout::kChannels) act = Pointwise<W, kParameters>(a, source[k].channel);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        T& value = pack.value[j];
        value = narrow<T>(act(j % kParameters, widen(value), widen(other.value[j]), slope));
      }
    }
    store_pack(static_cast<T*>(a.out) + i * kWidth, pack);
  }
}

}  // namespace disco_fast
