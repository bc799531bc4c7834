// The encoder of tokens, a block of tokens at a time.
//
// Within a block everything is kept transposed, [channels][tokens], so that a vector holds the same
// channel of L tokens: products, softmax and norms then need no horizontal sums, and a token's bits
// do not depend on its place in the block.
#pragma once

#include <cmath>

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

constexpr int kBlock = kEncoderBlock;
constexpr int kPlane = kTokenDim * kBlock;  // floats of a block's [kTokenDim][kBlock]
// Vectors of neighboring tokens at a time, and outputs of a product: kAtOnce * kOutputs sums stay
// in registers.
constexpr int kAtOnce = kRegisters == 32 ? 2 : 1;
constexpr int kOutputs = 8;
constexpr int kSpan = kAtOnce * kLanes<float>;
typedef Vector<float, kLanes<float>> Floats;
typedef Vector<int32_t, kLanes<float>> Integers;

inline Floats everywhere(float value) { return broadcast<float, kLanes<float>>(value); }
inline Floats floats(const float* from) { return load<kLanes<float>>(from); }

// 2^x for x up to 127, to within 2 units in the last place; below -126 it is 2^-126.
inline Floats power_of_two(Floats x) {
  x = x < -126.0f ? everywhere(-126.0f) : x;  // a NaN stays
  const Floats magic = everywhere(0x1.8p23f);
  const Floats rounded = x + magic;  // a whole number, in the low bits
  const Floats f = x - (rounded - magic);
  // Least maximal relative error for f in -0.5..0.5, 1.9e-9.
  Floats power = everywhere(0.00015345812f);
  power = power * f + 0.00133999314f;
  power = power * f + 0.00961848896f;
  power = power * f + 0.0555032878f;
  power = power * f + 0.240226469f;
  power = power * f + 0.693147206f;
  power = power * f + 1.0f;
  return Floats(Integers(power) + (Integers(rounded) << 23));
}

// to[o][t] = bias[o] + sum over i of matrix[i][o] * from[i][t], for a multiple of kOutputs outputs
// out of rows of `pitch`.
inline void multiply(const float* matrix, int pitch, const float* bias, const float* from,
                     int inputs, int outputs, float* to) {
  constexpr int L = kLanes<float>;
  for (int t = 0; t < kBlock; t += kSpan) {
    for (int o = 0; o < outputs; o += kOutputs) {
      Floats total[kOutputs][kAtOnce];
#pragma GCC unroll 8
      for (int j = 0; j < kOutputs; ++j) {
        for (int b = 0; b < kAtOnce; ++b) total[j][b] = everywhere(bias[o + j]);
      }
      for (int i = 0; i < inputs; ++i) {
        Floats value[kAtOnce];
        for (int b = 0; b < kAtOnce; ++b) value[b] = floats(from + i * kBlock + t + b * L);
#pragma GCC unroll 8
        for (int j = 0; j < kOutputs; ++j) {
          const Floats weight = everywhere(matrix[i * pitch + o + j]);
          for (int b = 0; b < kAtOnce; ++b) total[j][b] += weight * value[b];
        }
      }
#pragma GCC unroll 8
      for (int j = 0; j < kOutputs; ++j) {
        for (int b = 0; b < kAtOnce; ++b) store<L>(to + (o + j) * kBlock + t + b * L, total[j][b]);
      }
    }
  }
}

// Layer norm of tokens + added over the channels, in place of tokens.
inline void add_and_normalize(const float* norm, const float* added, float* tokens) {
  constexpr int L = kLanes<float>;
  for (int t = 0; t < kBlock; t += L) {
    Floats sum = {}, squares = {};
    for (int c = 0; c < kTokenDim; ++c) {
      const int i = c * kBlock + t;
      store<L>(tokens + i, floats(tokens + i) + floats(added + i));
      sum += floats(tokens + i);
    }
    const Floats mean = sum * (1.0f / kTokenDim);
    for (int c = 0; c < kTokenDim; ++c) {
      const Floats difference = floats(tokens + c * kBlock + t) - mean;
      squares += difference * difference;
    }
    float deviation[L];
    store<L>(deviation, squares * (1.0f / kTokenDim) + kNormEpsilon);
    for (int i = 0; i < L; ++i) deviation[i] = __builtin_sqrtf(deviation[i]);
    const Floats scale = 1.0f / floats(deviation);
    for (int c = 0; c < kTokenDim; ++c) {
      float* to = tokens + c * kBlock + t;
      store<L>(to, (floats(to) - mean) * scale * norm[c] + norm[kTokenDim + c]);
    }
  }
}

// Where a block's planes are in the workspace: its tokens, their positions, queries, and keys and
// values of even and of odd layers, for a block may be a layer ahead of another that reads them.
struct BlockPlanes {
  float *tokens, *position, *queries, *keys[2], *values[2];

  explicit BlockPlanes(float* start)
      : tokens(start),
        position(start + kPlane),
        queries(start + 2 * kPlane),
        keys{start + 3 * kPlane, start + 4 * kPlane},
        values{start + 5 * kPlane, start + 6 * kPlane} {}
};
static_assert(7 * kTokenDim == kEncoderFloats);

// One head of the tokens t..t + kSpan - 1 attends to all tokens of its image, a block of keys after
// the other: the sums are those for the largest score so far.
inline void attend(const float* queries, float* image, int64_t count, int parity, int head, int t,
                   float* attended) {
  constexpr int L = kLanes<float>;
  const int channel = head * kHeadDim * kBlock;
  Floats query[kHeadDim][kAtOnce], sum[kHeadDim][kAtOnce] = {}, total[kAtOnce] = {}, top[kAtOnce];
  for (int b = 0; b < kAtOnce; ++b) {
    top[b] = everywhere(-INFINITY);
    for (int d = 0; d < kHeadDim; ++d) {
      query[d][b] = floats(queries + channel + d * kBlock + t + b * L) * kScoreScale;
    }
  }
  float scores[kBlock][kSpan];
  for (int64_t first = 0; first < count; first += kBlock) {
    const BlockPlanes other(image + first * kEncoderFloats);
    const float *keys = other.keys[parity] + channel, *values = other.values[parity] + channel;
    const int here = int(count - first < kBlock ? count - first : kBlock);
    Floats highest[kAtOnce];
    for (int b = 0; b < kAtOnce; ++b) highest[b] = top[b];
    for (int k = 0; k < here; ++k) {
      Floats score[kAtOnce] = {};
#pragma GCC unroll 8
      for (int d = 0; d < kHeadDim; ++d) {
        const Floats key = everywhere(keys[d * kBlock + k]);
        for (int b = 0; b < kAtOnce; ++b) score[b] += key * query[d][b];
      }
      for (int b = 0; b < kAtOnce; ++b) {
        highest[b] = score[b] > highest[b] ? score[b] : highest[b];
        store<L>(scores[k] + b * L, score[b]);
      }
    }
    for (int b = 0; b < kAtOnce; ++b) {
      const Floats shrink = power_of_two(top[b] - highest[b]);
      top[b] = highest[b];
      total[b] *= shrink;
#pragma GCC unroll 8
      for (int d = 0; d < kHeadDim; ++d) sum[d][b] *= shrink;
    }
    for (int k = 0; k < here; ++k) {
      Floats share[kAtOnce];
      for (int b = 0; b < kAtOnce; ++b) {
        share[b] = power_of_two(floats(scores[k] + b * L) - top[b]);
        total[b] += share[b];
      }
#pragma GCC unroll 8
      for (int d = 0; d < kHeadDim; ++d) {
        const Floats value = everywhere(values[d * kBlock + k]);
        for (int b = 0; b < kAtOnce; ++b) sum[d][b] += value * share[b];
      }
    }
  }
  for (int d = 0; d < kHeadDim; ++d) {
    for (int b = 0; b < kAtOnce; ++b) {
      store<L>(attended + channel + d * kBlock + t + b * L, sum[d][b] / total[b]);
    }
  }
}

// The layer's work on a block once queries, keys and values of the whole image are known.
inline void finish_layer(const float* layer, int parity, float* image, int64_t count,
                         const BlockPlanes& block) {
  typedef EncoderLayer Layer;
  const Scratch<float> wide(kHidden * kBlock), added(kPlane);
  for (int head = 0; head < kHeads; ++head) {
    for (int t = 0; t < kBlock; t += kSpan) {
      attend(block.queries, image, count, parity, head, t, wide);
    }
  }
  multiply(layer + Layer::kOutWeight, kTokenDim, layer + Layer::kOutBias, wide, kTokenDim,
           kTokenDim, added);
  add_and_normalize(layer + Layer::kNorm1, added, block.tokens);
  multiply(layer + Layer::kHiddenWeight, kHidden, layer + Layer::kHiddenBias, block.tokens,
           kTokenDim, kHidden, wide);
  for (int i = 0; i < kHidden * kBlock; ++i) wide[i] = wide[i] < 0 ? 0 : wide[i];  // a NaN stays
  multiply(layer + Layer::kLastWeight, kTokenDim, layer + Layer::kLastBias, wide, kHidden,
           kTokenDim, added);
  add_and_normalize(layer + Layer::kNorm2, added, block.tokens);
}

// Queries and keys of tokens with their positions, values of tokens alone.
inline void project(const float* layer, int parity, const BlockPlanes& block) {
  const Scratch<float> located(kPlane);
  for (int i = 0; i < kPlane; ++i) located[i] = block.tokens[i] + block.position[i];
  const auto part = [&](int first, const float* from, float* to) {
    multiply(layer + EncoderLayer::kInWeight + first, EncoderLayer::kProjected,
             layer + EncoderLayer::kInBias + first, from, kTokenDim, kTokenDim, to);
  };
  part(0, located, block.queries);
  part(kTokenDim, located, block.keys[parity]);
  part(2 * kTokenDim, block.tokens, block.values[parity]);
}

// Transposes the tokens at hand; the others of the block become 0.
inline void load_block(const float* from, int64_t here, float* plane) {
  for (int c = 0; c < kTokenDim; ++c) {
    for (int t = 0; t < kBlock; ++t) {
      plane[c * kBlock + t] = t < here ? from[t * kTokenDim + c] : 0.0f;
    }
  }
}

// Ends layer `step` - 1 and begins layer `step`, where there are such.
inline void encode_blocks(const EncoderArgs& a, int64_t step, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  const int64_t blocks = encoder_blocks(a.count);
  for (int64_t index = begin; index < end; ++index) {
    const int64_t first = index % blocks * kBlock, token = index / blocks * a.count + first;
    const int64_t left = a.count - first, here = left < kBlock ? left : kBlock;
    float* image = a.workspace + index / blocks * blocks * kBlock * kEncoderFloats;
    const BlockPlanes block(image + first * kEncoderFloats);
    if (step == 0) {
      load_block(a.tokens + token * kTokenDim, here, block.tokens);
      load_block(a.position + first * kTokenDim, here, block.position);
    } else {
      const float* layer = a.weights + (step - 1) * EncoderLayer::kSize;
      finish_layer(layer, int((step - 1) % 2), image, a.count, block);
    }
    if (step < a.layers) {
      project(a.weights + step * EncoderLayer::kSize, int(step % 2), block);
      continue;
    }
    for (int64_t t = 0; t < here; ++t) {
      for (int c = 0; c < kTokenDim; ++c) {
        a.result[(token + t) * kTokenDim + c] = block.tokens[c * kBlock + t];
      }
    }
  }
}

}  // namespace disco_fast::DISCO_FAST_ISA
