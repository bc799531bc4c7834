// The words of the tensor cores, which CUDA has as PTX only: a warp multiplies two small matrices,
// of which each lane holds some elements, and adds the product to a third. Sums are exact here and
// rounded once. And the word that brings such matrices from shared memory.
#pragma once

#include <bit>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "emulator.h"

namespace emu {

// A lane's registers: of 16 x 8 sums, of a 16 x depth matrix, and of a depth x 8 matrix.
struct MmaLane {
  float sum[4];
  uint32_t a[4], b[2];
};

// Element types: how many there are in a register, and their values.
struct MmaHalf {
  static constexpr int kPacked = 2;
  EMU_UNWATCHED static float value(uint32_t bits, int part) {
    return __half2float(__half{uint16_t(bits >> 16 * part)});
  }
};
struct MmaBFloat16 {
  static constexpr int kPacked = 2;
  EMU_UNWATCHED static float value(uint32_t bits, int part) {
    return std::bit_cast<float>(bits >> 16 * part << 16);
  }
};
struct MmaTf32 {
  static constexpr int kPacked = 1;
  EMU_UNWATCHED static float value(uint32_t bits, int) {
    return std::bit_cast<float>(bits & 0xffffe000u);  // The others are ignored.
  }
};

template <class Type, int kDepth>
EMU_UNWATCHED void multiply_matrices(void* const* lanes) {
  MmaLane* const* lane = reinterpret_cast<MmaLane* const*>(lanes);
  constexpr int kPacked = Type::kPacked;
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      float& sum = lane[row % 8 * 4 + column / 2]->sum[row / 8 * 2 + column % 2];
      double exact = sum;
      for (int k = 0; k < kDepth; ++k) {
        const int within = k / kPacked % 4, half = k / (4 * kPacked);
        const uint32_t a = lane[row % 8 * 4 + within]->a[half * 2 + row / 8];
        const uint32_t b = lane[column * 4 + within]->b[half];
        exact += double(Type::value(a, k % kPacked)) * Type::value(b, k % kPacked);
      }
      sum = float(exact);
    }
  }
}

// mma.sync.aligned.m16n8kDEPTH. Called by all lanes of a warp.
template <class Type, int kDepth>
void mma(MmaLane& lane) {
  together(&lane, multiply_matrices<Type, kDepth>);
}

// A lane's part of ldmatrix: the row that it names, and what it gets of four matrices.
struct MatrixLane {
  struct alignas(16) Row {
    uint32_t words[4];
  } row;
  uint32_t* to;
};

EMU_UNWATCHED inline void deal_matrices(void* const* lanes) {
  MatrixLane* const* lane = reinterpret_cast<MatrixLane* const*>(lanes);
  for (int l = 0; l < kWarpSize; ++l) {
    for (int matrix = 0; matrix < 4; ++matrix) {
      lane[l]->to[matrix] = lane[matrix * 8 + l / 4]->row.words[l % 4];
    }
  }
}

// ldmatrix.sync.aligned.m8n8.x4.shared.b16. Called by all lanes of a warp, each of which reads the
// row that it names.
inline void load_matrices(uint32_t (&to)[4], const void* row) {
  MatrixLane lane = {*static_cast<const MatrixLane::Row*>(row), to};
  together(&lane, deal_matrices);
}

}  // namespace emu
