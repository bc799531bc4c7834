// A 3x3 convolution and what follows it in one kernel, for 16-bit types that are channels-last, on
// tensor cores: an implicit product of [pixels, 9 * inputs] and [9 * inputs, outputs].
//
// A block makes 64 outputs of a rectangle of pixels, of kDepth inputs at a time. These, with a
// border of one pixel, come to shared memory once and serve all nine taps; of the weights there is
// a row of three taps at a time, and those after it are on their way. A warp makes 64 outputs of 64
// pixels, in registers: so it reads a byte of shared memory for every 16 products.
#pragma once

#include "async_copy.cuh"
#include "bias_act.cuh"
#include "mma.cuh"

namespace disco_fast {

constexpr int kOutputs = 64;     // of a block
constexpr int kWarpPixels = 64;  // of a warp
constexpr int kMmaRows = 16, kMmaColumns = 8, kMmaDepth = 16;
constexpr int kPixelTiles = kWarpPixels / kMmaRows, kOutputTiles = kOutputs / kMmaColumns;
constexpr int kPiece = 8;                              // halves in 16 bytes
constexpr int kDepth = 32, kPieces = kDepth / kPiece;  // inputs at a time
constexpr int kInputPitch = kDepth + kPiece;           // eight neighbors lie in different banks

// A block's share of the work. kParts warps share the products of the same pixels, each with its
// own inputs, where there are too few pixels for a block to have more of them. kRowsOfTaps of the
// weights have a place in shared memory, one of which is read, and one of which has been read.
template <int kRows_, int kColumns_, int kParts_, int kRowsOfTaps_>
struct ConvolveTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kParts = kParts_;
  static constexpr int kRowsOfTaps = kRowsOfTaps_, kAhead = kRowsOfTaps - 1;
  static constexpr int kThreads = kRows * kColumns / kWarpPixels * kParts * kWarp;
  static constexpr int kSteps = kDepth / kMmaDepth / kParts;  // of a warp, for each tap
  static constexpr int kBorderColumns = kColumns + 2, kBordered = (kRows + 2) * kBorderColumns;
};
typedef ConvolveTile<16, 16, 1, 3> LargeTile;
typedef ConvolveTile<8, 16, 2, 4> SmallTile;

template <class T, class Tile>
struct alignas(16) ConvolveShared {
  T pixels[2][Tile::kBordered][kInputPitch];
  T weights[Tile::kRowsOfTaps][3][kOutputs][kInputPitch];
};

// The sums of a lane: as multiply_halves leaves them, of 16 pixels and 8 outputs each.
typedef float WarpSums[kPixelTiles][kOutputTiles][4];

// The output in row `row` of the weights in shared memory: so that a lane's sums of four tiles are
// eight neighbors.
__device__ __forceinline__ int output_of(int row) {
  return row / 32 * 32 + row % 8 / 2 * 8 + row % 32 / 8 * 2 + row % 2;
}

// Where a block's pixels and outputs lie.
template <class Tile>
struct ConvolvePlace {
  __device__ __forceinline__ explicit ConvolvePlace(const ConvolveArgs& a)
      : first_output(int(blockIdx.x % groups(a)) * kOutputs),
        first_row(int(blockIdx.y) * Tile::kRows),
        first_column(int(blockIdx.x / groups(a)) * Tile::kColumns) {}

  // Of outputs: neighbors in the grid, for they read the same pixels.
  __device__ __forceinline__ static unsigned groups(const ConvolveArgs& a) {
    return unsigned(a.outputs + kOutputs - 1) / kOutputs;
  }

  int first_output, first_row, first_column;
};

// What a thread copies to shared memory: the same eight inputs of every kEach-th pixel and output.
// Where these lie is worked out once. What lies outside is zero, and its address is not read.
template <class T, class Tile>
class ConvolveCopies {
 public:
  __device__ __forceinline__ ConvolveCopies(const ConvolveArgs& a, const ConvolvePlace<Tile>& place)
      : inputs_(int(a.inputs)),
        piece_(int(threadIdx.x) % kPieces * kPiece),
        row_(int(threadIdx.x) / kPieces),
        x_(static_cast<const T*>(a.x) + int64_t(blockIdx.z) * a.rows * a.columns * a.inputs),
        weight_(static_cast<const T*>(a.weight) + int64_t(place.first_output) * 9 * a.inputs) {
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const int bordered = row_ + k * kEach;
      const int row = place.first_row + bordered / Tile::kBorderColumns - 1;
      const int column = place.first_column + bordered % Tile::kBorderColumns - 1;
      const bool there = unsigned(row) < unsigned(a.rows) && unsigned(column) < unsigned(a.columns);
      pixel_[k] = there ? row * int(a.columns) + column : -1;
    }
#pragma unroll
    for (int k = 0; k < kWeights; ++k) {
      const int output = output_of(row_ + k * kEach);
      output_[k] = place.first_output + output < int(a.outputs) ? output : -1;
    }
  }

  // Inputs `first` on, of all pixels with a border.
  __device__ __forceinline__ void load_pixels(T (&to)[Tile::kBordered][kInputPitch],
                                              int first) const {
    const int input = first + piece_;
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const int bordered = row_ + k * kEach;
      if ((k + 1) * kEach > Tile::kBordered && bordered >= Tile::kBordered) break;
      copy_async(to[bordered] + piece_, x_ + int64_t(pixel_[k]) * inputs_ + input,
                 pixel_[k] >= 0 && input < inputs_);
    }
  }

  // Inputs `first` on, of three taps of a row.
  __device__ __forceinline__ void load_weights(T (&to)[3][kOutputs][kInputPitch], int first,
                                               int row) const {
    const int input = first + piece_;
#pragma unroll
    for (int k = 0; k < kWeights; ++k) {
      const bool there = output_[k] >= 0 && input < inputs_;
      const T* from = weight_ + (output_[k] * 9 + row * 3) * inputs_ + input;
#pragma unroll
      for (int tap = 0; tap < 3; ++tap) {
        copy_async(to[tap][row_ + k * kEach] + piece_, from + tap * inputs_, there);
      }
    }
  }

 private:
  static constexpr int kEach = Tile::kThreads / kPieces;
  static constexpr int kPixels = (Tile::kBordered + kEach - 1) / kEach;
  static constexpr int kWeights = kOutputs / kEach;
  static_assert(kOutputs % kEach == 0);
  const int inputs_, piece_, row_;
  const T *const x_, *const weight_;
  int pixel_[kPixels], output_[kWeights];
};

// Where a lane's rows of the matrices lie: of 16 pixels, and of the outputs of two tiles.
template <class Tile>
struct MatrixRows {
  __device__ __forceinline__ MatrixRows(int first_pixel, int part) {
    const int lane = int(threadIdx.x) % kWarp, pixel = first_pixel + lane % 16;
    const int bordered = pixel / Tile::kColumns * Tile::kBorderColumns + pixel % Tile::kColumns;
    const int first_input = part * Tile::kSteps * kMmaDepth;
    pixels = bordered * kInputPitch + lane / 16 * kPiece + first_input;
    weights = (lane / 16 * 8 + lane % 8) * kInputPitch + lane / 8 % 2 * kPiece + first_input;
  }
  int pixels, weights;
};

// One tap. The pixels are those above and left of the tap's.
template <class T, class Tile>
__device__ __forceinline__ void multiply_tap(const T* pixels, const T* weights, WarpSums& sums) {
#pragma unroll
  for (int step = 0; step < Tile::kSteps; ++step) {
    unsigned pixel[kPixelTiles][4];
#pragma unroll
    for (int m = 0; m < kPixelTiles; ++m) {
      const int at = m * Tile::kBorderColumns * kInputPitch;  // a row of the tile
      load_matrices(pixel[m], pixels + at + step * kMmaDepth);
    }
#pragma unroll
    for (int n = 0; n < kOutputTiles; n += 2) {
      unsigned both[4];
      load_matrices(both, weights + n * kMmaColumns * kInputPitch + step * kMmaDepth);
#pragma unroll
      for (int m = 0; m < kPixelTiles; ++m) {
        multiply_halves<T>(sums[m][n], pixel[m], {both[0], both[1]});
        multiply_halves<T>(sums[m][n + 1], pixel[m], {both[2], both[3]});
      }
    }
  }
}

// Two warps that share pixels give each other half of their sums: the first of them ends with those
// of the first two tiles, the second with the others, both in `sums[0]` and `sums[1]`.
__device__ __forceinline__ void add_parts(Pack<float, 4>* board, int part, WarpSums& sums) {
  constexpr int kHalf = kPixelTiles / 2 * kOutputTiles * kWarp;
  const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
  __syncthreads();  // nothing is read where the board lies
#pragma unroll
  for (int i = 0; i < kHalf / kWarp; ++i) {
    float (&first)[4] = sums[i / kOutputTiles][i % kOutputTiles];
    float (&second)[4] = sums[i / kOutputTiles + kPixelTiles / 2][i % kOutputTiles];
    Pack<float, 4> given;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      given.value[j] = part == 0 ? second[j] : first[j];
      first[j] = part == 0 ? first[j] : second[j];
    }
    board[warp * kHalf + i * kWarp + lane] = given;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kHalf / kWarp; ++i) {
    const Pack<float, 4> more = board[(warp ^ 1) * kHalf + i * kWarp + lane];
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[i / kOutputTiles][i % kOutputTiles][j] += more.value[j];
  }
}

// What follows, and the result of the tile of pixels that begins at `first`.
template <class T, class Tile, bool kResidual>
__device__ __forceinline__ void finish_tile(const ConvolveArgs& a, const ConvolvePlace<Tile>& place,
                                            int first, int group,
                                            const Pointwise<float, kPiece>& act,
                                            const float (&sums)[kOutputTiles][4]) {
  const MmaPlace lane;
  const int output = place.first_output + group * 32 + lane.part * kPiece;
  const float slope = float(a.slope);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int pixel = first + half * 8 + lane.row;
    const int row = place.first_row + pixel / Tile::kColumns;
    const int column = place.first_column + pixel % Tile::kColumns;
    if (row >= a.rows || column >= a.columns) continue;
    const int64_t at =
        ((int64_t(blockIdx.z) * a.rows + row) * a.columns + column) * a.outputs + output;
    Pack<T, kPiece> other = {}, result;
    if (kResidual) {
      other = load_pack<kPiece>(static_cast<const T*>(a.residual) + at);
    }
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      const float sum = sums[group * 4 + i / 2][half * 2 + i % 2];
      result.value[i] = narrow<T>(act(i, sum, widen(other.value[i]), slope));
    }
    store_pack(static_cast<T*>(a.out) + at, result);
  }
}

// Grid: (groups of outputs within columns of tiles) x rows of tiles x images.
template <class T, class Tile, bool kResidual>
__global__ void __launch_bounds__(Tile::kThreads) convolve_kernel(const ConvolveArgs a) {
  if constexpr (kTensorCores) {
    typedef ConvolveShared<T, Tile> Shared;
    Shared& shared = *dynamic_shared<Shared>();
    const ConvolvePlace<Tile> place(a);
    const ConvolveCopies<T, Tile> copies(a, place);
    const int warp = int(threadIdx.x) / kWarp, part = warp % Tile::kParts;
    const int own = warp / Tile::kParts * kWarpPixels;
    const MatrixRows<Tile> at(own, part);

    copies.load_pixels(shared.pixels[0], 0);
#pragma unroll
    for (int row = 0; row < Tile::kAhead; ++row) {
      copies.load_weights(shared.weights[row], row / 3 * kDepth, row % 3);
      commit_copies();
    }
    wait_for_copies<Tile::kAhead - 1>();
    __syncthreads();  // all have the first row's weights
    WarpSums sums = {};
    int buffer = 0, read = 0, written = Tile::kAhead;
#pragma unroll 1
    for (int first = 0; first < int(a.inputs); first += kDepth) {
#pragma unroll
      for (int row = 0; row < 3; ++row) {
        const T* pixels = shared.pixels[buffer][row * Tile::kBorderColumns] + at.pixels;
        const T* weights = shared.weights[read][0][0] + at.weights;
        multiply_tap<T, Tile>(pixels, weights, sums);
        multiply_tap<T, Tile>(pixels + kInputPitch, weights + kOutputs * kInputPitch, sums);
        // Before the last products, behind which all are ready for the next row.
        wait_for_copies<Tile::kAhead - 2>();
        __syncthreads();  // all have the next row's weights, and have read the last one's
        const int ahead = row + Tile::kAhead, following = first + ahead / 3 * kDepth;
        copies.load_weights(shared.weights[written], following, ahead % 3);
        if (ahead == 3) copies.load_pixels(shared.pixels[buffer ^ 1], following);
        commit_copies();
        multiply_tap<T, Tile>(pixels + 2 * kInputPitch, weights + 2 * kOutputs * kInputPitch, sums);
        written = read;
        read = read + 1 == Tile::kRowsOfTaps ? 0 : read + 1;
      }
      buffer ^= 1;
    }
    wait_for_copies<0>();
    if constexpr (Tile::kParts > 1) {
      add_parts(reinterpret_cast<Pack<float, 4>*>(&shared), part, sums);
    }
    constexpr int kOwnTiles = kPixelTiles / Tile::kParts;
#pragma unroll
    for (int group = 0; group < 2; ++group) {
      const int output = place.first_output + group * 32 + int(threadIdx.x) % 4 * kPiece;
      if (output >= int(a.outputs)) break;
      const Pointwise<float, kPiece> act(a, unsigned(output));
#pragma unroll
      for (int m = 0; m < kOwnTiles; ++m) {
        finish_tile<T, Tile, kResidual>(a, place, own + (part * kOwnTiles + m) * kMmaRows, group,
                                        act, sums[m]);
      }
    }
  }
}

}  // namespace disco_fast
