// Copies from global to shared memory that go on while the thread does. Compute capability 8.0 and
// later.
#pragma once

#include "common.cuh"

namespace disco_fast {

// 16 bytes, or as many zeros where there is nothing to copy; `from` is then not read.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool there) {
#if defined(DISCO_FAST_EMULATED)
  emu::copy_async(to, from, there ? 16 : 0);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  const unsigned address = unsigned(__cvta_generic_to_shared(to));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
#endif
}

// The thread's copies since the last call become a group, which may be empty.
__device__ __forceinline__ void commit_copies() {
#if defined(DISCO_FAST_EMULATED)
  emu::commit_copies();
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits for all of the thread's groups but the latest kUnderWay.
template <int kUnderWay>
__device__ __forceinline__ void wait_for_copies() {
#if defined(DISCO_FAST_EMULATED)
  emu::wait_for_copies(kUnderWay);
#elif defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kUnderWay) : "memory");
#endif
}

}  // namespace disco_fast
