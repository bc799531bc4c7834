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
#define __constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(bytes) __attribute__((aligned(bytes)))
// The threads of a block are fibers of one OS thread. (extern __shared__ cannot be had: use
// emu::dynamic_shared_memory().)
#define __shared__ static thread_local

// ---- Synchronization and exchange. A mask may name lanes that a small last warp lacks.

inline constexpr int warpSize = emu::kWarpSize;

// A test leaves out one of these two, by its place; others of the kind decide something, too.
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
inline int __syncthreads_count(int predicate) {
  return emu::sync_threads(emu::Word::kSyncThreadsCount, predicate != 0);
}
inline int __syncthreads_and(int predicate) {
  return emu::sync_threads(emu::Word::kSyncThreadsAnd, predicate == 0) == 0;
}
inline int __syncthreads_or(int predicate) {
  return emu::sync_threads(emu::Word::kSyncThreadsOr, predicate != 0) != 0;
}
inline void __syncwarp(unsigned mask = 0xffffffff) { emu::sync_warp(mask); }
inline void __threadfence_block() { emu::fence(); }
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

// `width` cuts the warp into segments, of which each lane reads its own; a lane whose source would
// lie outside keeps its value. As in PTX only the low five bits of the source count.
template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = warpSize) {
  const int segment = emu::lane() & -width;
  return emu::shuffle_value(emu::Word::kShuffle, mask, value, segment | (source & (width - 1)));
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = emu::lane(), source = lane - int(delta % 32);
  const bool inside = source >= (lane & -width);
  return emu::shuffle_value(emu::Word::kShuffleUp, mask, value, inside ? source : lane);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize) {
  const int lane = emu::lane(), source = lane + int(delta % 32);
  const bool inside = source <= (lane | (width - 1));
  return emu::shuffle_value(emu::Word::kShuffleDown, mask, value, inside ? source : lane);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = warpSize) {
  const int lane = emu::lane(), source = lane ^ (lane_mask % 32);
  const bool inside = source <= (lane | (width - 1));  // Lower segments may be read.
  return emu::shuffle_value(emu::Word::kShuffleXor, mask, value, inside ? source : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emu::ballot(emu::Word::kBallot, mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate) {
  return emu::ballot(emu::Word::kAny, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  return emu::ballot(emu::Word::kAll, mask, predicate == 0) == 0;
}

// ---- Atomics, without order, as in CUDA.

namespace emu {

template <typename T>
concept AtomicWord =
    std::same_as<T, int> || std::same_as<T, unsigned> || std::same_as<T, unsigned long long>;

// Replaces *address by update(*address); returns what it was.
template <typename T, typename Update>
T atomic_update(T* address, Update update) {
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &old, update(old), false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED)) {
  }
  return old;
}

}  // namespace emu

template <emu::AtomicWord T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
template <emu::AtomicWord T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  return emu::atomic_update(address, [value](T old) { return old < value ? value : old; });
}
template <emu::AtomicWord T>
T atomicMin(T* address, std::type_identity_t<T> value) {
  return emu::atomic_update(address, [value](T old) { return value < old ? value : old; });
}
template <emu::AtomicWord T>
T atomicExch(T* address, std::type_identity_t<T> value) {
  return __atomic_exchange_n(address, value, __ATOMIC_RELAXED);
}
template <emu::AtomicWord T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> value) {
  __atomic_compare_exchange_n(address, &compare, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return compare;
}

// ---- Loads and stores with a cache hint.

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
T __ldcg(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, std::type_identity_t<T> value) {
  *address = value;
}
template <typename T>
void __stcg(T* address, std::type_identity_t<T> value) {
  *address = value;
}

// ---- Arithmetic. <math.h> has the rest of it in the global namespace, for float and double.

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
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

// Through memory that the compiler must use, so that it cannot fuse the operations on both sides.
template <typename T>
T unfused(T value) {
  volatile T copy = value;
  return copy;
}

}  // namespace emu

inline float __fadd_rn(float x, float y) { return emu::unfused(x) + emu::unfused(y); }
inline float __fmul_rn(float x, float y) { return emu::unfused(x * y); }
inline double __dadd_rn(double x, double y) { return emu::unfused(x) + emu::unfused(y); }
inline double __dmul_rn(double x, double y) { return emu::unfused(x * y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

#define EMU_MIN_MAX(type)                                      \
  constexpr type min(type x, type y) { return y < x ? y : x; } \
  constexpr type max(type x, type y) { return x < y ? y : x; }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
#undef EMU_MIN_MAX
// Of a NaN and a number these give the number.
inline float min(float x, float y) { return fminf(x, y); }
inline float max(float x, float y) { return fmaxf(x, y); }
inline double min(double x, double y) { return fmin(x, y); }
inline double max(double x, double y) { return fmax(x, y); }

// ---- The host's side: one device, whose memory is the host's and whose streams do all at once.

typedef struct CUstream_st* cudaStream_t;

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaFuncAttributes {
  size_t sharedSizeBytes;
  int ptxVersion;
};

enum cudaLaunchAttributeID {
  cudaLaunchAttributeCooperative = 2,
  cudaLaunchAttributeClusterDimension = 4,
};
union cudaLaunchAttributeValue {
  int cooperative;
  struct {
    unsigned x, y, z;
  } clusterDim;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};

inline const char* cudaGetErrorString(cudaError_t error) { return emu::describe(error); }
inline cudaError_t cudaPeekAtLastError() { return emu::last_error(); }
inline cudaError_t cudaGetLastError() {
  const cudaError_t error = emu::last_error();
  emu::clear_error();
  return error;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
  return emu::keep_error(device == 0 ? cudaSuccess : cudaErrorInvalidDevice);
}
inline cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
inline cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return emu::keep_error(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = emu::multiprocessors();
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
      *value = emu::architecture() / 10;
      return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
      *value = emu::architecture() % 10;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = int(emu::shared_memory_limit());
      return cudaSuccess;
  }
  return emu::keep_error(cudaErrorInvalidValue);
}

template <typename T>
cudaError_t cudaFuncSetAttribute(T* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
    return emu::keep_error(cudaErrorInvalidValue);
  }
  return emu::keep_error(emu::allow_shared_memory(reinterpret_cast<const void*>(kernel), value));
}

template <typename T>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, T*) {
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

inline cudaError_t cudaMemsetAsync(void* memory, int byte, size_t count, cudaStream_t = nullptr) {
  std::memset(memory, byte, count);
  return cudaSuccess;
}

// Runs the grid before it returns. Of launch attributes it knows cooperative grids; the others are
// refused.
template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "CUDA copies them bit by bit");
  bool cooperative = false;
  for (unsigned i = 0; i < config->numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config->attrs[i];
    if (attribute.id != cudaLaunchAttributeCooperative) {
      return emu::keep_error(cudaErrorInvalidValue);
    }
    cooperative = attribute.val.cooperative != 0;
  }
  typedef std::pair<void (*)(Parameters...), std::tuple<Parameters...>> Call;
  const Call call(kernel, std::tuple<Parameters...>(std::forward<Arguments>(arguments)...));
  const auto run = [](const void* opaque) {
    const auto& [function, parameters] = *static_cast<const Call*>(opaque);
    std::apply(function, parameters);
  };
  return emu::keep_error(
      emu::launch({config->gridDim, config->blockDim, config->dynamicSmemBytes,
                   reinterpret_cast<const void*>(kernel), run, &call, cooperative}));
}
