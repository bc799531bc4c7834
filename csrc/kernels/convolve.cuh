// A 3x3 convolution and what follows it in one kernel, channels-last, on tensor cores: an implicit
// product of [pixels, 9 * inputs] and [9 * inputs, outputs]. Of 16-bit types, or of floats that are
// rounded to TF32; to the rest a float is two halves.
//
// A block makes 16 or 64 outputs of a rectangle of pixels, of 64 bytes of inputs at a time. These,
// with a border of one pixel, come to shared memory once and serve all nine taps; of the weights
// there is a row of three taps at a time, and those after it are on their way. A warp makes all
// outputs of 64 pixels, in registers: with 64 of them it reads a byte of shared memory for every 16
// products of halves.
#pragma once

#include "async_copy.cuh"
#include "bias_act.cuh"
#include "mma.cuh"

namespace disco_fast {

constexpr int kWarpPixels = 64;
constexpr int kMmaRows = 16, kMmaColumns = 8, kMmaBytes = 32;  // of a row of either factor
constexpr int kPixelTiles = kWarpPixels / kMmaRows;

// Inputs: in 16 bytes, at a time, of one product of matrices, and from one pixel to the next in
// shared memory, so that eight neighbors lie in different banks.
template <class T>
struct Inputs {
  static constexpr int kPiece = 16 / int(sizeof(T)), kPieces = 4, kDepth = kPieces * kPiece;
  static constexpr int kMmaDepth = kMmaBytes / int(sizeof(T)), kPitch = kDepth + kPiece;
};

// A block's share of the work. kParts warps share the products of the same pixels, each with its
// own inputs, where there are too few pixels for a block to have more of them. kRowsOfTaps of the
// weights have a place in shared memory, one of which is read, and one of which has been read.
template <int kRows_, int kColumns_, int kOutputs_, int kParts_, int kRowsOfTaps_>
struct ConvolveTile {
  static constexpr int kRows = kRows_, kColumns = kColumns_, kOutputs = kOutputs_;
  static constexpr int kParts = kParts_, kRowsOfTaps = kRowsOfTaps_, kAhead = kRowsOfTaps - 1;
  static constexpr int kThreads = kRows * kColumns / kWarpPixels * kParts * kWarp;
  static constexpr int kSteps = 4 * 16 / kMmaBytes / kParts;  // of a warp, for each tap
  static constexpr int kOutputTiles = kOutputs / kMmaColumns;
  static constexpr int kBorderColumns = kColumns + 2, kBordered = (kRows + 2) * kBorderColumns;

  // The sums of a lane: as multiply_halves leaves them, of 16 pixels and 8 outputs each.
  typedef float Sums[kPixelTiles][kOutputTiles][4];
};
typedef ConvolveTile<16, 16, 64, 1, 3> LargeTile;
typedef ConvolveTile<8, 16, 64, 2, 4> SmallTile;
typedef ConvolveTile<16, 16, 16, 1, 4> NarrowTile;

template <class T, class Tile>
struct alignas(16) ConvolveShared {
  T pixels[2][Tile::kBordered][Inputs<T>::kPitch];
  T weights[Tile::kRowsOfTaps][3][Tile::kOutputs][Inputs<T>::kPitch];
};

// Outputs that are moved at once: those of a lane's sums of some tiles, for which these have the
// outputs of a group in another order.
template <class T, class Tile>
struct OutputGroup {
  static constexpr int kNeighbors =
      Tile::kOutputs / 4 < Inputs<T>::kPiece ? Tile::kOutputs / 4 : Inputs<T>::kPiece;
  static constexpr int kTiles = kNeighbors / 2, kOutputs = 4 * kNeighbors;
  static constexpr int kGroups = Tile::kOutputs / kOutputs;

  // The output in row `row` of the weights in shared memory.
  __device__ __forceinline__ static int of_row(int row) {
    return row / kOutputs * kOutputs + row % 8 / 2 * kNeighbors + row % kOutputs / 8 * 2 + row % 2;
  }
};

// Where a block's pixels and outputs lie.
template <class Tile>
struct ConvolvePlace {
  __device__ __forceinline__ explicit ConvolvePlace(const ConvolveArgs& a)
      : first_output(int(blockIdx.x % groups(a)) * Tile::kOutputs),
        first_row(int(blockIdx.y) * Tile::kRows),
        first_column(int(blockIdx.x / groups(a)) * Tile::kColumns) {}

  // Of outputs: neighbors in the grid, for they read the same pixels.
  __device__ __forceinline__ static unsigned groups(const ConvolveArgs& a) {
    return unsigned(a.outputs + Tile::kOutputs - 1) / Tile::kOutputs;
  }

  int first_output, first_row, first_column;
};

// What a thread copies to shared memory: the same 16 bytes of every kEach-th pixel and output.
// Where these lie is worked out once. What lies outside is zero, and its address is not read.
template <class T, class Tile>
class ConvolveCopies {
 public:
  typedef Inputs<T> In;

  __device__ __forceinline__ ConvolveCopies(const ConvolveArgs& a, const ConvolvePlace<Tile>& place)
      : inputs_(int(a.inputs)),
        piece_(int(threadIdx.x) % In::kPieces * In::kPiece),
        row_(int(threadIdx.x) / In::kPieces),
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
      const int output = OutputGroup<T, Tile>::of_row(row_ + k * kEach);
      output_[k] = place.first_output + output < int(a.outputs) ? output : -1;
    }
  }

  // Inputs `first` on, of all pixels with a border.
  __device__ __forceinline__ void load_pixels(T (&to)[Tile::kBordered][In::kPitch],
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
  __device__ __forceinline__ void load_weights(T (&to)[3][Tile::kOutputs][In::kPitch], int first,
                                               int row) const {
    const int input = first + piece_;
#pragma unroll
    for (int k = 0; k < kWeights; ++k) {
      const int place = row_ + k * kEach;
      if ((k + 1) * kEach > Tile::kOutputs && place >= Tile::kOutputs) break;
      const bool there = output_[k] >= 0 && input < inputs_;
      const T* from = weight_ + (output_[k] * 9 + row * 3) * inputs_ + input;
#pragma unroll
      for (int tap = 0; tap < 3; ++tap) {
        copy_async(to[tap][place] + piece_, from + tap * inputs_, there);
      }
    }
  }

 private:
  static constexpr int kEach = Tile::kThreads / In::kPieces;
  static constexpr int kPixels = (Tile::kBordered + kEach - 1) / kEach;
  static constexpr int kWeights = (Tile::kOutputs + kEach - 1) / kEach;
  const int inputs_, piece_, row_;
  const T *const x_, *const weight_;
  int pixel_[kPixels], output_[kWeights];
};

// Where a lane's rows of the matrices lie: of 16 pixels, and of the outputs of two tiles.
template <class T, class Tile>
struct MatrixRows {
  typedef Inputs<T> In;

  __device__ __forceinline__ MatrixRows(int first_pixel, int part) {
    const int lane = int(threadIdx.x) % kWarp, pixel = first_pixel + lane % 16;
    const int bordered = pixel / Tile::kColumns * Tile::kBorderColumns + pixel % Tile::kColumns;
    const int first_input = part * Tile::kSteps * In::kMmaDepth;
    pixels = bordered * In::kPitch + lane / 16 * In::kPiece + first_input;
    weights = (lane / 16 * 8 + lane % 8) * In::kPitch + lane / 8 % 2 * In::kPiece + first_input;
  }
  int pixels, weights;
};

// The words of matrices as tensor cores take them: of floats they ignore the last 13 bits, which
// are rounded away here.
template <class T>
__device__ __forceinline__ void round_words(unsigned (&words)[4]) {
  if constexpr (sizeof(T) == 4) {
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] += 0x1000;
  }
}

template <class T>
__device__ __forceinline__ void multiply_words(float (&sum)[4], const unsigned (&a)[4],
                                               const unsigned (&b)[2]) {
  if constexpr (sizeof(T) == 4) {
    multiply_tf32(sum,
                  {__uint_as_float(a[0]), __uint_as_float(a[1]), __uint_as_float(a[2]),
                   __uint_as_float(a[3])},
                  {__uint_as_float(b[0]), __uint_as_float(b[1])});
  } else {
    multiply_halves<T>(sum, a, b);
  }
}

// One tap. The pixels are those above and left of the tap's.
template <class T, class Tile>
__device__ __forceinline__ void multiply_tap(const T* pixels, const T* weights,
                                             typename Tile::Sums& sums) {
  constexpr int kPitch = Inputs<T>::kPitch;
#pragma unroll
  for (int step = 0; step < Tile::kSteps; ++step) {
    unsigned pixel[kPixelTiles][4];
#pragma unroll
    for (int m = 0; m < kPixelTiles; ++m) {
      const int at = m * Tile::kBorderColumns * kPitch;  // a row of the tile
      load_matrices(pixel[m], pixels + at + step * Inputs<T>::kMmaDepth);
      round_words<T>(pixel[m]);
    }
#pragma unroll
    for (int n = 0; n < Tile::kOutputTiles; n += 2) {
      unsigned both[4];
      load_matrices(both, weights + n * kMmaColumns * kPitch + step * Inputs<T>::kMmaDepth);
      round_words<T>(both);
#pragma unroll
      for (int m = 0; m < kPixelTiles; ++m) {
        multiply_words<T>(sums[m][n], pixel[m], {both[0], both[1]});
        multiply_words<T>(sums[m][n + 1], pixel[m], {both[2], both[3]});
      }
    }
  }
}

// Two warps that share pixels give each other half of their sums: the first of them ends with those
// of the first two tiles, the second with the others, both in `sums[0]` and `sums[1]`.
template <class Tile>
__device__ __forceinline__ void add_parts(Pack<float, 4>* board, int part,
                                          typename Tile::Sums& sums) {
  static_assert(Tile::kParts == 2);
  constexpr int kOutputTiles = Tile::kOutputTiles;
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

// What follows, and the result: a group of outputs of the tile of pixels that begins at `first`.
template <class T, class Tile, bool kResidual, int kNeighbors = OutputGroup<T, Tile>::kNeighbors>
__device__ __forceinline__ void finish_tile(const ConvolveArgs& a, const ConvolvePlace<Tile>& place,
                                            int first, int output,
                                            const Pointwise<float, kNeighbors>& act,
                                            const float (&sums)[Tile::kOutputTiles][4],
                                            int first_tile) {
  const int lane_row = MmaPlace().row;
  const float slope = float(a.slope);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int pixel = first + half * 8 + lane_row;
    const int row = place.first_row + pixel / Tile::kColumns;
    const int column = place.first_column + pixel % Tile::kColumns;
    if (row >= a.rows || column >= a.columns) continue;
    const int64_t at =
        ((int64_t(blockIdx.z) * a.rows + row) * a.columns + column) * a.outputs + output;
    Pack<T, kNeighbors> other = {}, result;
    if (kResidual) other = load_pack<kNeighbors>(static_cast<const T*>(a.residual) + at);
#pragma unroll
    for (int i = 0; i < kNeighbors; ++i) {
      const float sum = sums[first_tile + i / 2][half * 2 + i % 2];
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
    typedef Inputs<T> In;
    typedef OutputGroup<T, Tile> Group;
    Shared& shared = *dynamic_shared<Shared>();
    const ConvolvePlace<Tile> place(a);
    const ConvolveCopies<T, Tile> copies(a, place);
    const int warp = int(threadIdx.x) / kWarp, part = warp % Tile::kParts;
    const int own = warp / Tile::kParts * kWarpPixels;
    const MatrixRows<T, Tile> at(own, part);

    copies.load_pixels(shared.pixels[0], 0);
#pragma unroll
    for (int row = 0; row < Tile::kAhead; ++row) {
      copies.load_weights(shared.weights[row], row / 3 * In::kDepth, row % 3);
      commit_copies();
    }
    wait_for_copies<Tile::kAhead - 1>();
    __syncthreads();  // all have the first row's weights
    typename Tile::Sums sums = {};
    int buffer = 0, read = 0, written = Tile::kAhead;
#pragma unroll 1
    for (int first = 0; first < int(a.inputs); first += In::kDepth) {
#pragma unroll
      for (int row = 0; row < 3; ++row) {
        const T* pixels = shared.pixels[buffer][row * Tile::kBorderColumns] + at.pixels;
        const T* weights = shared.weights[read][0][0] + at.weights;
        constexpr int kTap = Tile::kOutputs * In::kPitch;
        multiply_tap<T, Tile>(pixels, weights, sums);
        multiply_tap<T, Tile>(pixels + In::kPitch, weights + kTap, sums);
        // Before the last products, behind which all are ready for the next row.
        wait_for_copies<Tile::kAhead - 2>();
        __syncthreads();  // all have the next row's weights, and have read the last one's
        const int ahead = row + Tile::kAhead, following = first + ahead / 3 * In::kDepth;
        copies.load_weights(shared.weights[written], following, ahead % 3);
        if (ahead == 3) copies.load_pixels(shared.pixels[buffer ^ 1], following);
        commit_copies();
        multiply_tap<T, Tile>(pixels + 2 * In::kPitch, weights + 2 * kTap, sums);
        written = read;
        read = read + 1 == Tile::kRowsOfTaps ? 0 : read + 1;
      }
      buffer ^= 1;
    }
    wait_for_copies<0>();
    if constexpr (Tile::kParts > 1) {
      add_parts<Tile>(reinterpret_cast<Pack<float, 4>*>(&shared), part, sums);
    }
    constexpr int kOwnTiles = kPixelTiles / Tile::kParts;
#pragma unroll
    for (int group = 0; group < Group::kGroups; ++group) {
      const int output =
          place.first_output + group * Group::kOutputs + MmaPlace().part * Group::kNeighbors;
      if (output >= int(a.outputs)) break;
      const Pointwise<float, Group::kNeighbors> act(a, unsigned(output));
#pragma unroll
      for (int m = 0; m < kOwnTiles; ++m) {
        finish_tile<T, Tile, kResidual>(a, place, own + (part * kOwnTiles + m) * kMmaRows, output,
                                        act, sums[m], group * Group::kTiles);
      }
    }
  }
}

}  // namespace disco_fast
