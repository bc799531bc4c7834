// Tensor cores: a warp multiplies two small matrices and adds the product to a third. The lane with
// `row` = lane / 4 and `part` = lane % 4 has of the [16, 8] sums those of rows `row` and `row` + 8
// and columns 2 * part and 2 * part + 1. Compute capability 8.0 and later.
#pragma once

#include <cstring>
#include <type_traits>

#include "common.cuh"

namespace disco_fast {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kTensorCores = false;  // the words below do nothing then
#else
constexpr bool kTensorCores = true;
#endif
constexpr int kTensorArch = 80;  // from there on there is code for tensor cores

struct MmaPlace {
  __device__ __forceinline__ MmaPlace()
      : row(int(threadIdx.x) % kWarp / 4), part(int(threadIdx.x) % 4) {}
  int row, part;
};

// a: [16, 16], a lane's elements of each row are 2 * part, 2 * part + 1 and those 8 further on:
// rows `row`, `row` + 8, then the same rows 8 further on. b: [16, 8], column `row`, likewise.
template <class T>
__device__ __forceinline__ void multiply_halves(float (&sum)[4], const unsigned (&a)[4],
                                                const unsigned (&b)[2]) {
  static_assert(sizeof(T) == 2);
  constexpr bool kBFloat16 = std::is_same<T, __nv_bfloat16>::value;
#if defined(DISCO_FAST_EMULATED)
  emu::MmaLane lane = {{sum[0], sum[1], sum[2], sum[3]}, {a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  emu::mma<std::conditional_t<kBFloat16, emu::MmaBFloat16, emu::MmaHalf>, 16>(lane);
  for (int i = 0; i < 4; ++i) sum[i] = lane.sum[i];
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  if constexpr (kBFloat16) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#endif
}

// Of floats that have 10 bits behind the first, others are ignored. a: [16, 8], a lane's elements
// of each row are `part` and `part` + 4: rows `row`, `row` + 8, then the same rows 4 further on.
// b: [8, 8], column `row`, likewise.
__device__ __forceinline__ void multiply_tf32(float (&sum)[4], const float (&a)[4],
                                              const float (&b)[2]) {
#if defined(DISCO_FAST_EMULATED)
  emu::MmaLane lane = {
      {sum[0], sum[1], sum[2], sum[3]},
      {__float_as_uint(a[0]), __float_as_uint(a[1]), __float_as_uint(a[2]), __float_as_uint(a[3])},
      {__float_as_uint(b[0]), __float_as_uint(b[1])}};
  emu::mma<emu::MmaTf32, 8>(lane);
  for (int i = 0; i < 4; ++i) sum[i] = lane.sum[i];
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

// Four 8 x 8 matrices of 16-bit elements from shared memory: lane 8 * i + r gives the address of
// row r of matrix i, 16 bytes, and gets of each matrix the elements of row `row` at 2 * part and
// 2 * part + 1.
__device__ __forceinline__ void load_matrices(unsigned (&to)[4], const void* row) {
#if defined(DISCO_FAST_EMULATED)
  emu::load_matrices(to, row);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = unsigned(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
#endif
}

// Two values as one register.
template <class T>
__device__ __forceinline__ unsigned pack_pair(float x, float y) {
  unsigned bits;
  if constexpr (std::is_same<T, __nv_bfloat16>::value) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x, y);
    memcpy(&bits, &pair, sizeof bits);
  } else {
    const __half2 pair = __floats2half2_rn(x, y);
    memcpy(&bits, &pair, sizeof bits);
  }
  return bits;
}

}  // namespace disco_fast
