// The machine behind the CUDA words of cuda_runtime.h: runs a grid on the calling OS thread, block
// by block or (a cooperative grid) all blocks in turns, each CUDA thread of a block as a fiber.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vector_types.h"

// On functions that run between two fibers, or touch what belongs to the emulator and not to the
// kernel: ThreadSanitizer must not take their memory accesses for the kernel's.
#define EMU_UNWATCHED __attribute__((no_sanitize("thread")))

enum cudaError {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorLaunchFailure = 719,
  cudaErrorCooperativeLaunchTooLarge = 720,
};
typedef enum cudaError cudaError_t;

namespace emu {

// ---- For tests.

// Which of the threads of a block that can run is resumed when one has to wait. What a correct
// kernel computes does not depend on it.
enum class Order { kAscending, kDescending, kShuffled };
void set_order(Order order);

// What cudaDevAttrMaxSharedMemoryPerBlockOptin answers; launches that ask for more are refused.
void set_shared_memory_limit(size_t bytes);
size_t shared_memory_limit();

// What cudaFuncGetAttributes answers for every kernel's static shared memory, which cannot be seen
// here; 0 at first. It counts with what a launch asks for.
void set_static_shared_memory(size_t bytes);
size_t static_shared_memory();

// How often cudaFuncSetAttribute was called.
int64_t allowances();

// What cudaDevAttrMultiProcessorCount answers, 4 at first. Each holds one block, so that this is
// the largest cooperative grid.
void set_multiprocessors(int count);
int multiprocessors();

// The compute capability of the kernels' code, 90 at first: as in 9.0.
void set_architecture(int architecture);
int architecture();

// Whether the barrier or fence in a line of a file is the one that EMULATED_WITHOUT in the
// environment names, as in kmeans.cuh:358. Looked up before any kernel runs: what synchronizes
// threads must not be added in its place.
bool left_out(const char* file, int line);

// ---- For kernels.

// The running block's, 16-byte aligned.
unsigned char* dynamic_shared_memory();

// ---- For cuda_runtime.h.

inline constexpr int kWarpSize = 32;
inline constexpr size_t kDefaultSharedMemory = 48 << 10;

// The barriers of a block come first, the words of a warp after them.
enum class Word {
  kSyncThreads,
  kSyncThreadsOr,
  kSyncWarp,
  kShuffle,
  kShuffleXor,
  kBallot,
  kMma,
  kNanosleep,
};

// Whether any thread of the block voted for.
bool sync_threads(Word word, bool vote);
void sync_warp();
// What lane `source` offers; all ones if it is not one of the lanes that take part.
uint64_t shuffle(Word word, unsigned mask, uint64_t offered, int source);
unsigned ballot(unsigned mask, bool vote);
// All lanes of a whole warp come to it, each with something of its own; then one of them acts on
// the things of all.
void together(void* mine, void (*act)(void* const* lanes));
int lane();
// cp.async.cg.shared.global of 16 bytes, of which `bytes` are copied and the others zero; its
// groups are waited for. When a copy is made is open until then: at once with ascending threads, at
// the latest with descending ones.
void copy_async(void* to, const void* from, int bytes);
void commit_copies();
void wait_for_copies(int under_way);
// Lets all others of the block go on first, and in a cooperative grid all other blocks.
void sleep();

// Orders what a thread did before it before what another does after a later one of its own.
void fence();

struct Launch {
  dim3 grid, block;
  size_t shared_bytes;
  const void* kernel;  // Its address; `call` calls it with its parameters.
  void (*call)(const void* parameters);
  const void* parameters;
  bool cooperative;  // All blocks run at once.
};
cudaError_t launch(const Launch& launch);
cudaError_t allow_shared_memory(const void* kernel, int bytes);
size_t allowed_shared_memory(const void* kernel);

const char* describe(cudaError_t error);

}  // namespace emu

// Of the running thread. In CUDA they are constant.
extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;
