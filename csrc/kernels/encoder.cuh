// The encoder of tokens: all layers in one launch. A group of blocks works on an image, and each of
// its blocks on tiles of T tokens. What a token becomes depends on no other but through keys and
// values, which pass through L2: after each layer the group waits once.
//
// Products keep a thread's share of a matrix in registers, loaded before the barrier that the
// product has to wait for, and take the tokens from shared memory. Sums have the same order for
// every T, and T is all that depends on the batch: an image's result does not.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kEncoderThreads = 256;
constexpr int kEncoderWarps = kEncoderThreads / kWarp;
constexpr int kLeastTileTokens = 4, kMostTileTokens = 32;  // T is a power of two within
constexpr int kSlots = kWarp / kHeads;                     // lanes of a head, which share its keys
constexpr int kKeys = 8;                                   // that a lane attends to at a time
constexpr int kWarpKeys = kKeys * kSlots;                  // and a warp
constexpr float kLowestScore = -3e38f;         // finite: its difference from itself is 0
constexpr int kSplits = 4;                     // lanes of a warp that share a sum of products
constexpr int kColumns = 4 * kWarp / kSplits;  // outputs of a warp
constexpr int kSharers = kEncoderWarps * kColumns / kTokenDim;  // warps that share a sum

// Planes [N, P, kTokenDim] of the workspace: tokens, queries, and keys and values of even and of
// odd layers, for a block may be a layer ahead of another that still reads them.
constexpr int kEncoderPlanes = 6;

// How the work is laid out; a function of the shape and of the device.
struct EncoderPlan {
  int tiles;          // of an image
  int blocks;         // that work on an image
  int groups;         // of blocks
  unsigned* arrived;  // [N], 0 at first: blocks that have come to a barrier of the image
};

// Shared memory, in floats.
template <int T>
struct EncoderShared {
  static constexpr int kRound = T < 16 ? T : 16;  // tokens that attend at a time
  static constexpr int kRows = T * kTokenDim;     // the input of products
  static constexpr int kSums = kEncoderWarps * kRound * kTokenDim;
  // In turns: sums of attention, partial sums of products, hidden values, tokens with positions.
  static constexpr int kWide = kSums > T* kHidden ? kSums : T * kHidden;
  static constexpr int kStates = kEncoderWarps * kRound * kHeads;  // largest scores; totals
  static constexpr int kBytes = int(sizeof(float)) * (kRows + kWide + 2 * kStates);
};

// A tile's place in its image and in shared memory.
template <int T>
struct EncoderTile {
  int first;  // its first token
  int here;   // how many it has, 1..T
  float *rows, *wide, *tops, *totals;

  __device__ EncoderTile(int number, int64_t count)
      : first(number * T),
        here(count - first < T ? int(count - first) : T),
        rows(dynamic_shared<float>()),
        wide(rows + EncoderShared<T>::kRows),
        tops(wide + EncoderShared<T>::kWide),
        totals(tops + EncoderShared<T>::kStates) {}
};

// ---- Products.

// A thread's share of a matrix: four neighboring outputs, of every kSplits-th four inputs.
template <int kInputs>  // of the warp
struct MatrixPart {
  static constexpr int kQuads = kInputs / 4 / kSplits;
  float weight[kQuads][4][4];  // four inputs, four outputs
};

__device__ __forceinline__ int split_of_lane() { return int(threadIdx.x) % kWarp / (kColumns / 4); }
__device__ __forceinline__ int column_of_lane() { return int(threadIdx.x) % (kColumns / 4) * 4; }

// `matrix` is at the first input and output of the warp.
template <int kInputs>
__device__ __forceinline__ MatrixPart<kInputs> load_part(const float* matrix, int pitch) {
  MatrixPart<kInputs> held;
#pragma unroll
  for (int i = 0; i < MatrixPart<kInputs>::kQuads; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int input = (i * kSplits + split_of_lane()) * 4 + j;
      const float4 weight =
          __ldg(reinterpret_cast<const float4*>(matrix + input * pitch + column_of_lane()));
      held.weight[i][j][0] = weight.x;
      held.weight[i][j][1] = weight.y;
      held.weight[i][j][2] = weight.z;
      held.weight[i][j][3] = weight.w;
    }
  }
  return held;
}

// Tokens that are multiplied at a time; each lane ends with the sums of kChunk / kSplits of them.
template <int T>
constexpr int kChunk = T < 8 ? T : 8;

// The lane's i-th token.
template <int T>
__device__ __forceinline__ int token_of_sum(int i) {
  constexpr int kSums = kChunk<T> / kSplits;
  return i / kSums * kChunk<T> + split_of_lane() * kSums + i % kSums;
}

// Calls take(i, sums of four outputs from column_of_lane()) for each of the lane's tokens, `rows`
// at the warp's first input of the first token. Rows of absent tokens hold anything.
template <int T, int kInputs, class Take>
__device__ __forceinline__ void multiply(const MatrixPart<kInputs>& held, const float* rows,
                                         int pitch, int here, const Take& take) {
  constexpr int U = kChunk<T>;
  const int split = split_of_lane();
  const bool upper = split / 2 == 1, odd = split % 2 == 1;
#pragma unroll
  for (int chunk = 0; chunk < T; chunk += U) {
    if (chunk >= here) break;
    float total[U][4] = {};
#pragma unroll
    for (int i = 0; i < MatrixPart<kInputs>::kQuads; ++i) {
#pragma unroll
      for (int t = 0; t < U; ++t) {
        const Pack<float, 4> value =
            load_pack<4>(rows + (chunk + t) * pitch + (i * kSplits + split) * 4);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
#pragma unroll
          for (int o = 0; o < 4; ++o) {
            total[t][o] = fmaf(value.value[j], held.weight[i][j][o], total[t][o]);
          }
        }
      }
    }
    // The lanes of a sum halve the tokens twice: (0 + 2) + (1 + 3), by number of the split.
    float half[U / 2][4];
#pragma unroll
    for (int t = 0; t < U / 2; ++t) {
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const float given = upper ? total[t][o] : total[t + U / 2][o];
        const float kept = upper ? total[t + U / 2][o] : total[t][o];
        half[t][o] = kept + __shfl_xor_sync(kAllLanes, given, kWarp / 2);
      }
    }
#pragma unroll
    for (int t = 0; t < U / 4; ++t) {
      Pack<float, 4> sum;
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const float given = odd ? half[t][o] : half[t + U / 4][o];
        const float kept = odd ? half[t + U / 4][o] : half[t][o];
        sum.value[o] = kept + __shfl_xor_sync(kAllLanes, given, kWarp / 4);
      }
      take(chunk / U * (U / 4) + t, sum);
    }
  }
}

// Four numbers that are added to sums.
__device__ __forceinline__ Pack<float, 4> load_bias(const float* bias) {
  return load_pack<4>(bias + column_of_lane());
}

// ---- Attention.

__device__ __forceinline__ float dot(const Pack<float, kHeadDim>& a,
                                     const Pack<float, kHeadDim>& b) {
  float total = 0;
#pragma unroll
  for (int d = 0; d < kHeadDim; ++d) total = fmaf(a.value[d], b.value[d], total);
  return total;
}

// What a lane has seen of the keys, for A tokens and one head: sums for the largest score so far.
template <int A>
struct Attention {
  float top[A], total[A], sum[A][kHeadDim];
};

// A warp attends to every kEncoderWarps-th kWarpKeys keys, of which each of the kSlots lanes of a
// head takes every kSlots-th; a lane's head is its number modulo kHeads.
__device__ __forceinline__ Attention<kSlots> attend(const Pack<float, kHeadDim> (&query)[kSlots],
                                                    const float* keys, const float* values,
                                                    int count) {
  constexpr int A = kSlots;
  Attention<A> state = {};
#pragma unroll
  for (int a = 0; a < A; ++a) state.top[a] = kLowestScore;
  const int warp = threadIdx.x / kWarp, head = threadIdx.x % kHeads * kHeadDim;
  const int slot = threadIdx.x % kWarp / kHeads;
  for (int first = warp * kWarpKeys; first < count; first += kEncoderWarps * kWarpKeys) {
    const auto key_of = [&](int k) { return first + k * kSlots + slot; };
    const auto row_of = [&](int k) { return int64_t(min(key_of(k), count - 1)) * kTokenDim; };
    float score[A][kKeys], top[A];
#pragma unroll
    for (int a = 0; a < A; ++a) top[a] = state.top[a];
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      const auto key = load_pack<kHeadDim>(keys + row_of(k) + head);
#pragma unroll
      for (int a = 0; a < A; ++a) {
        score[a][k] = key_of(k) < count ? dot(query[a], key) : -INFINITY;
        top[a] = fmaxf(top[a], score[a][k]);
      }
    }
#pragma unroll
    for (int a = 0; a < A; ++a) {
      const float shrink = exp2f(state.top[a] - top[a]);
      state.top[a] = top[a];
      state.total[a] *= shrink;
#pragma unroll
      for (int d = 0; d < kHeadDim; ++d) state.sum[a][d] *= shrink;
    }
#pragma unroll
    for (int k = 0; k < kKeys; ++k) {
      const auto value = load_pack<kHeadDim>(values + row_of(k) + head);
#pragma unroll
      for (int a = 0; a < A; ++a) {
        const float share = exp2f(score[a][k] - top[a]);
        state.total[a] += share;
#pragma unroll
        for (int d = 0; d < kHeadDim; ++d) {
          state.sum[a][d] = fmaf(share, value.value[d], state.sum[a][d]);
        }
      }
    }
  }
  return state;
}

// Two lanes of a head, `apart` lanes from one another, put together what they have seen: each for
// one half of the tokens, the one of the upper slot for the second.
template <int A>
__device__ __forceinline__ Attention<A / 2> put_together(const Attention<A>& state, int apart) {
  const bool upper = threadIdx.x & apart;
  const auto other = [&](float first, float second) {
    return __shfl_xor_sync(kAllLanes, upper ? first : second, apart);
  };
  Attention<A / 2> joined;
#pragma unroll
  for (int a = 0; a < A / 2; ++a) {
    const int b = a + A / 2;
    const float own_top = upper ? state.top[b] : state.top[a];
    const float other_top = other(state.top[a], state.top[b]);
    const float top = fmaxf(own_top, other_top);
    const float shrink = exp2f(own_top - top), other_shrink = exp2f(other_top - top);
    const auto join = [&](float first, float second) {
      return fmaf(other(first, second), other_shrink, (upper ? second : first) * shrink);
    };
    joined.top[a] = top;
    joined.total[a] = join(state.total[a], state.total[b]);
#pragma unroll
    for (int d = 0; d < kHeadDim; ++d) joined.sum[a][d] = join(state.sum[a][d], state.sum[b][d]);
  }
  return joined;
}

// The tile's attended values, into its rows.
template <int T>
__device__ __forceinline__ void attend_tile(const EncoderTile<T>& tile, const float* queries,
                                            const float* keys, const float* values, int count) {
  constexpr int R = EncoderShared<T>::kRound;
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int head = lane % kHeads, slot = lane / kHeads;
  for (int round = 0; round < tile.here; round += R) {
#pragma unroll 1
    for (int first = 0; first < R; first += kSlots) {
      Pack<float, kHeadDim> query[kSlots];
#pragma unroll
      for (int a = 0; a < kSlots; ++a) {
        const int64_t row = min(tile.first + round + first + a, count - 1);
        query[a] = load_pack<kHeadDim>(queries + row * kTokenDim + head * kHeadDim);
      }
      // The lane of slot s ends with token s.
      const Attention<1> state =
          put_together(put_together(attend(query, keys, values, count), 2 * kHeads), kHeads);
      if (round > 0 && first == 0) __syncthreads();  // the last round has been put together
      const int row = warp * R + first + slot;
      tile.tops[row * kHeads + head] = state.top[0];
      tile.totals[row * kHeads + head] = state.total[0];
      Pack<float, kHeadDim> sum;
#pragma unroll
      for (int d = 0; d < kHeadDim; ++d) sum.value[d] = state.sum[0][d];
      store_pack(tile.wide + row * kTokenDim + head * kHeadDim, sum);
    }
    __syncthreads();
    for (int i = threadIdx.x; i < R * kTokenDim; i += kEncoderThreads) {
      const int state_index = i / kHeadDim;  // token, head
      float top = kLowestScore, total = 0, sum = 0;
#pragma unroll
      for (int w = 0; w < kEncoderWarps; ++w) {
        top = fmaxf(top, tile.tops[w * R * kHeads + state_index]);
      }
#pragma unroll
      for (int w = 0; w < kEncoderWarps; ++w) {
        const float shrink = exp2f(tile.tops[w * R * kHeads + state_index] - top);
        total = fmaf(tile.totals[w * R * kHeads + state_index], shrink, total);
        sum = fmaf(tile.wide[w * R * kTokenDim + i], shrink, sum);
      }
      tile.rows[round * kTokenDim + i] = sum / total;
    }
  }
}

// ---- The tokens themselves: each is a warp's, two channels a lane.

template <int T>
struct OwnTokens {
  static constexpr int kCount = (T + kEncoderWarps - 1) / kEncoderWarps;
  float value[kCount][2];
};

// Calls body(i, token of the tile, offset of the lane's first channel) for the warp's tokens.
template <int T, class Body>
__device__ __forceinline__ void for_own(const EncoderTile<T>& tile, const Body& body) {
  const int warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < OwnTokens<T>::kCount; ++i) {
    const int token = warp + i * kEncoderWarps;
    if (token < tile.here) body(i, token, lane);
  }
}

// What the lane's two channels get: the bias of a product, and scale and shift of the norm after
// it.
struct NormPart {
  float bias[2], scale[2], shift[2];
};

__device__ __forceinline__ NormPart load_norm(const float* bias, const float* norm) {
  NormPart held;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int channel = threadIdx.x % kWarp + h * kWarp;
    held.bias[h] = __ldg(bias + channel);
    held.scale[h] = __ldg(norm + channel);
    held.shift[h] = __ldg(norm + kTokenDim + channel);
  }
  return held;
}

// Layer norm of own tokens and the sum of kSharers partial products in tile.wide, with their bias.
template <int T>
__device__ __forceinline__ void add_and_normalize(const EncoderTile<T>& tile, const NormPart& norm,
                                                  OwnTokens<T>& own) {
  for_own(tile, [&](int i, int token, int lane) {
    float (&value)[2] = own.value[i];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float added = norm.bias[h];
#pragma unroll
      for (int part = 0; part < kSharers; ++part) {
        added += tile.wide[(part * T + token) * kTokenDim + lane + h * kWarp];
      }
      value[h] += added;
    }
    const float mean = warp_sum(value[0] + value[1]) * (1.0f / kTokenDim);
    const float low = value[0] - mean, high = value[1] - mean;
    const float variance = warp_sum(fmaf(low, low, high * high)) * (1.0f / kTokenDim);
    const float scale = 1.0f / sqrtf(variance + kNormEpsilon);
    value[0] = fmaf(low * scale, norm.scale[0], norm.shift[0]);
    value[1] = fmaf(high * scale, norm.scale[1], norm.shift[1]);
  });
}

template <int T>
__device__ __forceinline__ void store_rows(const EncoderTile<T>& tile, const OwnTokens<T>& own) {
  for_own(tile, [&](int i, int token, int lane) {
    tile.rows[token * kTokenDim + lane] = own.value[i][0];
    tile.rows[token * kTokenDim + lane + kWarp] = own.value[i][1];
  });
}

// ---- The steps of a layer.

// From queries, keys and values of the whole image to what the second norm has to add, in
// tile.wide, which the block has yet to wait for.
template <int T>
__device__ __forceinline__ void attend_and_feed(const EncoderTile<T>& tile, const float* layer,
                                                const float* queries, const float* keys,
                                                const float* values, int count, OwnTokens<T>& own) {
  typedef EncoderLayer Layer;
  constexpr int kOutInputs = kTokenDim / kSharers, kLastInputs = kHidden / kSharers;
  const int warp = threadIdx.x / kWarp, part = warp % kSharers, column = warp / kSharers * kColumns;
  const auto store_part = [&](int i, const Pack<float, 4>& sum) {
    const int row = part * T + token_of_sum<T>(i);
    store_pack(tile.wide + row * kTokenDim + column + column_of_lane(), sum);
  };
  const auto out = load_part<kOutInputs>(
      layer + Layer::kOutWeight + part * kOutInputs * kTokenDim + column, kTokenDim);
  attend_tile(tile, queries, keys, values, count);
  __syncthreads();  // attended values are known
  multiply<T>(out, tile.rows + part * kOutInputs, kTokenDim, tile.here, store_part);
  const auto hidden = load_part<kTokenDim>(layer + Layer::kHiddenWeight + warp * kColumns, kHidden);
  const auto bias = load_bias(layer + Layer::kHiddenBias + warp * kColumns);
  const NormPart norm = load_norm(layer + Layer::kOutBias, layer + Layer::kNorm1);
  __syncthreads();  // their projections are
  add_and_normalize(tile, norm, own);
  store_rows(tile, own);
  __syncthreads();  // normalized tokens are
  multiply<T>(hidden, tile.rows, kTokenDim, tile.here, [&](int i, Pack<float, 4> sum) {
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      sum.value[o] += bias.value[o];
      sum.value[o] = sum.value[o] < 0 ? 0 : sum.value[o];  // a NaN stays
    }
    const int row = token_of_sum<T>(i);
    store_pack(tile.wide + row * kHidden + warp * kColumns + column_of_lane(), sum);
  });
  const auto last = load_part<kLastInputs>(
      layer + Layer::kLastWeight + part * kLastInputs * kTokenDim + column, kTokenDim);
  __syncthreads();  // hidden values are
  Pack<float, 4> sums[T / kSplits] = {};
  multiply<T>(last, tile.wide + part * kLastInputs, kHidden, tile.here,
              [&](int i, const Pack<float, 4>& sum) { sums[i] = sum; });
  __syncthreads();  // hidden values have been read
#pragma unroll
  for (int i = 0; i < T / kSplits; ++i) store_part(i, sums[i]);
}

// Queries and keys of tile.wide, tokens with their positions; values of tile.rows, tokens alone.
template <int T>
__device__ __forceinline__ void project(const EncoderTile<T>& tile,
                                        const MatrixPart<kTokenDim>& held,
                                        const Pack<float, 4>& bias, float* queries, float* keys,
                                        float* values) {
  constexpr int kWarpsOfPlane = kTokenDim / kColumns;
  const int warp = threadIdx.x / kWarp, plane = warp / kWarpsOfPlane;
  if (warp >= 3 * kWarpsOfPlane) return;
  float* to = plane == 0 ? queries : plane == 1 ? keys : values;
  to += tile.first * int64_t(kTokenDim) + warp % kWarpsOfPlane * kColumns + column_of_lane();
  const float scale = plane == 0 ? kScoreScale : 1.0f;
  const float* rows = plane < 2 ? tile.wide : tile.rows;
  multiply<T>(held, rows, kTokenDim, tile.here, [&](int i, Pack<float, 4> sum) {
#pragma unroll
    for (int o = 0; o < 4; ++o) sum.value[o] = (sum.value[o] + bias.value[o]) * scale;
    const int token = token_of_sum<T>(i);
    if (token < tile.here) store_pack(to + token * kTokenDim, sum);
  });
}

// Ends layer `step` - 1 and begins layer `step` for a tile, where there are such.
template <int T>
__device__ __forceinline__ void encode_tile(const EncoderArgs& a, const EncoderTile<T>& tile,
                                            int64_t image, int step) {
  typedef EncoderLayer Layer;
  const int warp = threadIdx.x / kWarp, count = int(a.count);
  const int64_t plane = a.images * a.count * kTokenDim, start = image * a.count * kTokenDim;
  float* tokens = a.workspace + start;
  float* queries = tokens + plane;
  const auto keys = [&](int layer) { return queries + (1 + layer % 2) * plane; };
  const auto values = [&](int layer) { return queries + (3 + layer % 2) * plane; };
  const bool begins = step < int(a.layers);
  const float* next = a.weights + step * int64_t(Layer::kSize);
  const float* last = next - Layer::kSize;

  OwnTokens<T> own = {}, position = {};
  const float* from = step < 2 ? a.tokens + start : tokens;
  for_own(tile, [&](int i, int token, int lane) {
    const float* row = from + (tile.first + token) * int64_t(kTokenDim) + lane;
    own.value[i][0] = row[0];
    own.value[i][1] = row[kWarp];
  });
  if (step > 0) {
    attend_and_feed(tile, last, queries, keys(step - 1), values(step - 1), count, own);
  }
  MatrixPart<kTokenDim> in = {};
  Pack<float, 4> bias = {};
  if (begins) {
    // Six warps have outputs.
    const int column = warp * kColumns < Layer::kProjected ? warp * kColumns : 0;
    in = load_part<kTokenDim>(next + Layer::kInWeight + column, Layer::kProjected);
    bias = load_bias(next + Layer::kInBias + column);
    for_own(tile, [&](int i, int token, int lane) {
      const float* row = a.position + (tile.first + token) * int64_t(kTokenDim) + lane;
      position.value[i][0] = row[0];
      position.value[i][1] = row[kWarp];
    });
  }
  if (step > 0) {
    const NormPart norm = load_norm(last + Layer::kLastBias, last + Layer::kNorm2);
    __syncthreads();  // what the second norm adds is known
    add_and_normalize(tile, norm, own);
    float* to = begins ? tokens : a.result + start;
    for_own(tile, [&](int i, int token, int lane) {
      float* row = to + (tile.first + token) * int64_t(kTokenDim) + lane;
      row[0] = own.value[i][0];
      row[kWarp] = own.value[i][1];
    });
  }
  if (!begins) return;
  store_rows(tile, own);
  for_own(tile, [&](int i, int token, int lane) {
    // Of the sums that the norms of other warps may still read, these are the lane's own.
    tile.wide[token * kTokenDim + lane] = own.value[i][0] + position.value[i][0];
    tile.wide[token * kTokenDim + lane + kWarp] = own.value[i][1] + position.value[i][1];
  });
  __syncthreads();  // the layer's input is known
  project(tile, in, bias, queries, keys(step), values(step));
}

// Grid: groups of `plan.blocks` blocks, all of them resident.
template <int T>
__global__ void __launch_bounds__(kEncoderThreads, 1)
    encoder_kernel(const EncoderArgs a, const EncoderPlan plan) {
  const int group = int(blockIdx.x) / plan.blocks, member = int(blockIdx.x) % plan.blocks;
  for (int64_t image = group; image < a.images; image += plan.groups) {
    for (int step = 0; step <= int(a.layers); ++step) {
      for (int number = member; number < plan.tiles; number += plan.blocks) {
        // The memory of the last tile has been read; for a next step waiting is enough.
        if (number != member || (step == 0 && image != group)) __syncthreads();
        encode_tile(a, EncoderTile<T>(number, a.count), image, step);
      }
      if (step < int(a.layers)) {
        wait_for_image(plan.arrived + image, unsigned((step + 1) * plan.blocks));
      }
    }
  }
}

}  // namespace disco_fast
