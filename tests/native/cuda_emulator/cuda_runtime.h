// Stands in for the CUDA header of this name: the words that kernels and their launchers are
// written in, for the host's compiler. README.md says what they do here and what they cannot do.
#pragma once

// Standard headers come first: they must not see the words below as macros.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "emulator.h"
#include "mma.h"
#include "vector_types.h"

#define DISCO_FAST_EMULATED 1

// ---- Qualifiers.

#define __global__
#define __device__
#define __host__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
// The threads of a block are fibers of one OS thread. (extern __shared__ cannot be had: use
// emu::dynamic_shared_memory().)
#define __shared__ static thread_local

// ---- Synchronization and exchange. A mask may name lanes that a small last warp lacks.

// A test leaves out one of these two, by its place; __syncthreads_or() decides something, too.
#define __syncthreads()                                  \
  do {                                                   \
    if (!emu::left_out(__FILE__, __LINE__)) {            \
      emu::sync_threads(emu::Word::kSyncThreads, false); \
    }                                                    \
  } while (false)
#define __threadfence()                                   \
  do {                                                    \
    if (!emu::left_out(__FILE__, __LINE__)) emu::fence(); \
  } while (false)
inline int __syncthreads_or(int predicate) {
  return emu::sync_threads(emu::Word::kSyncThreadsOr, predicate != 0);
}
inline void __syncwarp() { emu::sync_warp(); }
inline void __nanosleep(unsigned) { emu::sleep(); }

namespace emu {

template <typename T>
T shuffle_value(Word word, unsigned mask, T value, int source) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = shuffle(word, mask, bits, source);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

}  // namespace emu

// As in PTX only the low five bits of the source count.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source) {
  return emu::shuffle_value(emu::Word::kShuffle, mask, value, source & 31);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask) {
  const int source = (emu::lane() ^ lane_mask) & 31;
  return emu::shuffle_value(emu::Word::kShuffleXor, mask, value, source);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emu::ballot(mask, predicate != 0);
}

// Without order, as in CUDA.
inline unsigned atomicAdd(unsigned* address, unsigned value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

// ---- Loads with a cache hint.

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}

// ---- Arithmetic. <math.h> has the rest of it in the global namespace, for float and double.

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
// Four of the eight bytes of y and x, low ones first; a digit of the selector for each.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const uint64_t bytes = uint64_t(y) << 32 | x;
  unsigned chosen = 0;
  for (int i = 0; i < 4; ++i) {
    chosen |= unsigned(bytes >> (selector >> 4 * i & 7) * 8 & 0xff) << 8 * i;
  }
  return chosen;
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }

namespace emu {

// Through memory that the compiler must use, so that it cannot fuse a product with a sum after it.
template <typename T>
T unfused(T value) {
  volatile T copy = value;
  return copy;
}

}  // namespace emu

inline float __fmul_rn(float x, float y) { return emu::unfused(x * y); }
inline double __dmul_rn(double x, double y) { return emu::unfused(x * y); }

// Takes no other types, rather than convert them: CUDA has an overload for each.
template <std::same_as<int> T>
constexpr T min(T x, T y) {
  return y < x ? y : x;
}

// ---- The host's side: one device, whose memory is the host's and whose streams do all at once.

typedef struct CUstream_st* cudaStream_t;

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
  int ptxVersion;
};

enum cudaLaunchAttributeID { cudaLaunchAttributeCooperative = 2 };
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int cooperative;
  } val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

inline const char* cudaGetErrorString(cudaError_t error) { return emu::describe(error); }

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : cudaErrorInvalidDevice;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return cudaErrorInvalidDevice;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = emu::multiprocessors();
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(emu::shared_memory_limit());
      return cudaSuccess;
  }
  return cudaErrorInvalidValue;
}

inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  return emu::allow_shared_memory(kernel, value);
}

inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
  attributes->sharedSizeBytes = emu::static_shared_memory();
  attributes->ptxVersion = emu::architecture();
  return cudaSuccess;
}

// One, if its shared memory is allowed: cooperative grids are small, for all their fibers live at
// once.
template <typename T>
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, T* kernel, int,
                                                          size_t shared_bytes) {
  *blocks = shared_bytes <= emu::allowed_shared_memory(reinterpret_cast<const void*>(kernel));
  return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* memory, int byte, size_t count, cudaStream_t) {
  std::memset(memory, byte, count);
  return cudaSuccess;
}

// Runs the grid before it returns.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "CUDA copies them bit by bit");
  bool cooperative = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    cooperative |= attribute.id == cudaLaunchAttributeCooperative && attribute.val.cooperative != 0;
  }
  typedef std::pair<void (*)(Parameters...), std::tuple<Parameters...>> Call;
  const Call call(kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...));
  const auto run = [](const void* opaque) {
    const auto& [function, parameters] = *static_cast<const Call*>(opaque);
    std::apply(function, parameters);
  };
  return emu::launch({config->gridDim, config->blockDim, config->dynamicSmemBytes,
                      reinterpret_cast<const void*>(kernel), run, &call, cooperative});
}
