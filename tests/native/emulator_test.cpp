// The CUDA words of tests/native/cuda_emulator, on kernels whose results are known:
//   g++ -std=c++20 -O1 -g -I tests/native/cuda_emulator tests/native/emulator_test.cpp
//   tests/native/cuda_emulator/*.cpp -o t && ./t
// also with -fsanitize=thread and with -fsanitize=address,undefined. With an argument it runs one
// wrong kernel, for the sanitizer to report: race-shared, race-warps, race-shuffle, race-blocks,
// race-far, race-grid (thread), overrun (address), misaligned (undefined). "time" prints what
// switches cost.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr unsigned kFullMask = 0xffffffff;
constexpr emu::Order kOrders[] = {emu::Order::kAscending, emu::Order::kDescending,
                                  emu::Order::kShuffled};

int failures = 0;

void expect(bool good, const std::string& what) {
  if (good) return;
  std::printf("failed: %s\n", what.c_str());
  ++failures;
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch(dim3 grid, dim3 block, size_t shared_bytes, void (*kernel)(Parameters...),
                   Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch_cooperative(dim3 grid, dim3 block, size_t shared_bytes,
                               void (*kernel)(Parameters...), Arguments... arguments) {
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  const cudaLaunchConfig_t config = {grid, block, shared_bytes, nullptr, &cooperative, 1};
  return cudaLaunchKernelEx(&config, kernel, arguments...);
}

void expect_success(cudaError_t error, const std::string& what) {
  expect(error == cudaSuccess, what + ": " + cudaGetErrorString(error));
}

// ---- Indices.

__global__ void mark(int* counts) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  ++counts[block * blockDim.x * blockDim.y * blockDim.z + thread];
}

void test_indices() {
  const dim3 grid(3, 2, 4), block(5, 3, 7);
  std::vector<int> counts(24 * 105, 0);
  expect_success(launch(grid, block, 0, mark, counts.data()), "indices");
  for (int count : counts) expect(count == 1, "each thread of each block runs once");
}

// ---- Reduction: static and dynamic shared memory, barriers, shuffles.

template <typename T>
__global__ void __launch_bounds__(1024) sum_blocks(const T* __restrict__ values, T* sums) {
  __shared__ T of_warps[32];
  T* const copies = reinterpret_cast<T*>(emu::dynamic_shared_memory());
  const int thread = threadIdx.x, threads = blockDim.x, warps = (threads + 31) / 32;
  copies[thread] = values[blockIdx.x * blockDim.x + thread];
  __syncthreads();
  T sum = copies[threads - 1 - thread];
  for (int step = 16; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kFullMask, sum, step);
    if ((thread ^ step) < threads) sum += other;
  }
  if (thread % 32 == 0) of_warps[thread / 32] = sum;
  __syncthreads();
  if (thread == 0) {
    T total = 0;
    for (int warp = 0; warp < warps; ++warp) total += of_warps[warp];
    sums[blockIdx.x] = total;
  }
}

template <typename T>
void test_sum(unsigned blocks, unsigned threads, const std::string& what) {
  std::vector<T> values(blocks * threads), sums(blocks);
  for (size_t i = 0; i < values.size(); ++i) values[i] = T(i % 1009);
  expect_success(
      launch(blocks, threads, threads * sizeof(T), sum_blocks<T>, values.data(), sums.data()),
      what);
  for (unsigned block = 0; block < blocks; ++block) {
    T sum = 0;
    for (unsigned i = 0; i < threads; ++i) sum += values[block * threads + i];
    expect(sums[block] == sum, what);
  }
}

void test_sums() {
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    for (unsigned threads : {1u, 32u, 64u, 256u, 1024u}) {
      const std::string what =
          "sum of " + std::to_string(threads) + " in order " + std::to_string(int(order));
      test_sum<float>(5, threads, what + ", float");
      test_sum<double>(3, threads, what + ", double");
      test_sum<int>(1, threads, what + ", int");
    }
  }
  emu::set_order(emu::Order::kAscending);
}

// ---- Order, and what shared memory holds at first.

__global__ void record_order(int* order) {
  __shared__ unsigned count;
  if (threadIdx.x == blockDim.x - 1) count = 0;
  __syncthreads();
  order[atomicAdd(&count, 1)] = threadIdx.x;
}

void test_orders() {
  constexpr int kThreads = 100;
  std::vector<int> order(kThreads);
  emu::set_order(emu::Order::kDescending);
  launch(1, kThreads, 0, record_order, order.data());
  expect(order[1] == kThreads - 1 && order[kThreads - 1] == 1, "descending order");
  emu::set_order(emu::Order::kShuffled);
  launch(1, kThreads, 0, record_order, order.data());
  int steps = 0;
  for (int i = 1; i < kThreads; ++i) steps += std::abs(order[i] - order[i - 1]) == 1;
  expect(steps < kThreads / 2, "shuffled order");
  emu::set_order(emu::Order::kAscending);
  launch(1, kThreads, 0, record_order, order.data());
  expect(order[1] == 0 && order[kThreads - 1] == kThreads - 2, "ascending order");
}

__global__ void check_poison(size_t bytes, unsigned* zeroed) {
  unsigned char* const memory = emu::dynamic_shared_memory();
  if (reinterpret_cast<uintptr_t>(memory) % 16 != 0) atomicAdd(zeroed, 1);
  for (size_t i = threadIdx.x; i < bytes; i += blockDim.x) {
    if (memory[i] != 0xff) atomicAdd(zeroed, 1);
    memory[i] = 0;
  }
}

void test_poison() {
  unsigned zeroed = 0;
  expect_success(launch(4, 64, 1001, check_poison, 1001, &zeroed), "poison");
  expect(zeroed == 0, "dynamic shared memory is filled before each block, and aligned");
}

// ---- Shuffles and votes.

enum class Shuffle { kIndex, kXor };

template <typename T>
__global__ void shuffle_values(Shuffle shuffle, int argument, T* values) {
  const T value = values[threadIdx.x];
  values[threadIdx.x] = shuffle == Shuffle::kIndex ? __shfl_sync(kFullMask, value, argument)
                                                   : __shfl_xor_sync(kFullMask, value, argument);
}

template <typename T>
void test_shuffle(Shuffle shuffle, int argument) {
  const std::string what = "shuffle " + std::to_string(int(shuffle)) + " by " +
                           std::to_string(argument) + " of " + std::to_string(sizeof(T)) + " bytes";
  std::vector<T> before(32), after(32);
  for (int i = 0; i < 32; ++i) before[i] = T((T(1) / 8 + i + 1) * T(1ll << (sizeof(T) * 4)));
  after = before;
  expect_success(launch(1, 32, 0, shuffle_values<T>, shuffle, argument, after.data()), what);
  for (int lane = 0; lane < 32; ++lane) {
    const int source = (shuffle == Shuffle::kIndex ? argument : lane ^ argument) % 32;
    expect(after[lane] == before[source], what);
  }
}

void test_shuffles() {
  for (Shuffle shuffle : {Shuffle::kIndex, Shuffle::kXor}) {
    for (int argument : {0, 1, 3, 8, 17, 31, 37}) {
      test_shuffle<int>(shuffle, argument);
      test_shuffle<float>(shuffle, argument);
      test_shuffle<double>(shuffle, argument);
      test_shuffle<int64_t>(shuffle, argument);
    }
  }
}

// Halves of a warp that part, meet on their own several times over, and come together again.
__global__ void part_and_meet(unsigned* results) {
  const int lane = threadIdx.x;
  const bool low = lane < 12;
  const unsigned mask = low ? 0x00000fffu : 0xfffff000u;
  unsigned value = lane;
  for (int i = 0; i < (low ? 3 : 7); ++i) value += __shfl_sync(mask, value, low ? 5 : 20);
  const unsigned ballot = __ballot_sync(mask, lane % 2);
  const unsigned other = __shfl_xor_sync(kFullMask, ballot, 31);
  results[lane] = value ^ ballot ^ other;
}

void test_parts() {
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    std::vector<unsigned> results(32);
    expect_success(launch(1, 32, 0, part_and_meet, results.data()), "parts");
    for (unsigned lane = 0; lane < 32; ++lane) {
      const bool low = lane < 12, other_low = (lane ^ 31) < 12;
      unsigned value = lane, read = low ? 5 : 20;
      for (int i = 0; i < (low ? 3 : 7); ++i) value += read, read *= 2;
      const unsigned ballot = 0xaaaaaaaa & (low ? 0x00000fffu : 0xfffff000u);
      const unsigned other = 0xaaaaaaaa & (other_low ? 0x00000fffu : 0xfffff000u);
      expect(results[lane] == (value ^ ballot ^ other), "parts of a warp");
    }
  }
  emu::set_order(emu::Order::kAscending);
}

// A last warp of 8 lanes, and a read from a lane that is not there.
__global__ void small_warp(unsigned* ballots, float* absent) {
  const int thread = threadIdx.x;
  ballots[thread] = __ballot_sync(kFullMask, 1);
  absent[thread] = __shfl_sync(kFullMask, 1.0f, 20);
  __syncwarp();
}

void test_small_warp() {
  std::vector<unsigned> ballots(40);
  std::vector<float> absent(40);
  expect_success(launch(1, 40, 0, small_warp, ballots.data(), absent.data()), "small warp");
  expect(ballots[0] == kFullMask && ballots[32] == 0xff, "ballot of a small warp");
  expect(absent[0] == 1 && std::isnan(absent[39]), "a lane that is not there gives poison");
}

// ---- Fences, and votes of a block.

// The last block to finish sums up what all have stored.
__global__ void last_block_sums(int* parts, unsigned* finished, int* total) {
  parts[blockIdx.x] = blockIdx.x + 1;
  __threadfence();
  if (atomicAdd(finished, 1) != gridDim.x - 1) return;
  __threadfence();
  *total = 0;
  for (unsigned block = 0; block < gridDim.x; ++block) *total += parts[block];
}

void test_fence() {
  std::vector<int> parts(10);
  unsigned finished = 0;
  int total = 0;
  expect_success(launch(10, 1, 0, last_block_sums, parts.data(), &finished, &total), "fence");
  expect(total == 55, "the last block sees what the others stored");
}

__global__ void vote_in_block(int* counts) {
  const int thread = threadIdx.x, threads = blockDim.x;
  int count = 0;
  for (int i = 0; i < threads; ++i) {
    count += __syncthreads_or(thread == i) != 0;
    count += __syncthreads_or(0) == 0;
  }
  counts[thread] = count;
}

void test_block_votes() {
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    std::vector<int> counts(70);
    expect_success(launch(1, 70, 0, vote_in_block, counts.data()), "block votes");
    for (int count : counts) expect(count == 2 * 70, "block votes");
  }
  emu::set_order(emu::Order::kAscending);
}

// ---- Cooperative grids: blocks that wait for one another.

__device__ void wait_for_grid(unsigned* arrived, unsigned wanted) {
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (atomicAdd(arrived, 0u) < wanted) __nanosleep(32);
    __threadfence();
  }
  __syncthreads();
}

// Each block passes what it holds in shared memory on to the next, several times over.
__global__ void pass_on(int* held, unsigned* arrived, int rounds) {
  int* const own = reinterpret_cast<int*>(emu::dynamic_shared_memory());
  const int thread = threadIdx.x, threads = blockDim.x, next = (blockIdx.x + 1) % gridDim.x;
  own[thread] = blockIdx.x * threads + thread;
  for (int round = 0; round < rounds; ++round) {
    held[next * threads + thread] = own[thread];
    wait_for_grid(arrived, (2 * round + 1) * gridDim.x);
    own[thread] = held[blockIdx.x * threads + threads - 1 - thread];
    wait_for_grid(arrived, (2 * round + 2) * gridDim.x);
  }
  held[blockIdx.x * threads + thread] = own[thread];
}

void test_cooperative_grid() {
  constexpr int kThreads = 70;
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    for (int blocks : {1, 3, 4}) {
      std::vector<int> held(blocks * kThreads);
      unsigned arrived = 0;
      expect_success(launch_cooperative(blocks, kThreads, kThreads * sizeof(int), pass_on,
                                        held.data(), &arrived, 3),
                     "cooperative grid");
      for (int i = 0; i < blocks * kThreads; ++i) {
        const int from = (i / kThreads + 3 * (blocks - 1)) % blocks;
        expect(held[i] == from * kThreads + kThreads - 1 - i % kThreads, "cooperative grid");
      }
    }
  }
  emu::set_order(emu::Order::kAscending);
}

void test_cooperative_limits() {
  unsigned arrived = 0;
  const auto launched = [&](int blocks) {
    return launch_cooperative(blocks, 1, 0, pass_on, static_cast<int*>(nullptr), &arrived, 0);
  };
  expect(launched(5) == cudaErrorCooperativeLaunchTooLarge, "too large");
  emu::set_multiprocessors(5);
  int held[5] = {};
  expect(launch_cooperative(5, 1, sizeof(int), pass_on, held, &arrived, 1) == cudaSuccess,
         "more processors");
  emu::set_multiprocessors(4);
  int blocks = -1;
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, pass_on, 64, 48 << 10);
  expect(blocks == 1, "one block on each");
  cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, pass_on, 64, (48 << 10) + 1);
  expect(blocks == 0, "none with more memory than allowed");
}

__global__ void neighbors_in_warp(int* values) {
  __shared__ int shared[64];
  const int thread = threadIdx.x;
  for (int i = 0; i < 5; ++i) {
    shared[thread] = values[thread];
    __syncwarp();
    values[thread] = shared[thread ^ 1] + 1;
    __syncwarp();
  }
}

void test_warp_barrier() {
  std::vector<int> values(64);
  for (int i = 0; i < 64; ++i) values[i] = i;
  expect_success(launch(1, 64, 0, neighbors_in_warp, values.data()), "warp barrier");
  for (int i = 0; i < 64; ++i) expect(values[i] == (i ^ 1) + 5, "warp barrier");
}

// ---- Tensor cores. Matrices of small whole numbers: which lane has which elements shows.

constexpr int kLane = 32;
int a_value(int row, int k) { return (row * 7 + k * 3) % 11 - 5; }
int b_value(int k, int column) { return (k * 5 + column * 2) % 9 - 4; }

// [depth][lane] registers of halves: elements 2p, 2p + 1 of a row, and those 8 further on.
__global__ void multiply_halves(emu::MmaLane* lanes, bool bfloat16) {
  emu::MmaLane& lane = lanes[threadIdx.x];
  bfloat16 ? emu::mma<emu::MmaBFloat16, 16>(lane) : emu::mma<emu::MmaHalf, 16>(lane);
}
__global__ void multiply_tf32(emu::MmaLane* lanes) {
  emu::mma<emu::MmaTf32, 8>(lanes[threadIdx.x]);
}

void expect_product(const std::vector<emu::MmaLane>& lanes, int depth, const std::string& what) {
  for (int lane = 0; lane < kLane; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + (i < 2 ? 0 : 8), column = lane % 4 * 2 + i % 2;
      int sum = lane;  // What was there before.
      for (int k = 0; k < depth; ++k) sum += a_value(row, k) * b_value(k, column);
      expect(lanes[lane].sum[i] == float(sum), what);
    }
  }
}

void test_tensor_cores() {
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    for (bool bfloat16 : {false, true}) {
      const auto bits = [&](int value) -> uint32_t {
        return bfloat16 ? __float2bfloat16_rn(float(value)).bits
                        : __float2half_rn(float(value)).bits;
      };
      std::vector<emu::MmaLane> lanes(kLane);
      for (int l = 0; l < kLane; ++l) {
        const int row = l / 4, k = l % 4 * 2;
        const auto a = [&](int r, int at) {
          return bits(a_value(r, at)) | bits(a_value(r, at + 1)) << 16;
        };
        const auto b = [&](int at) {
          return bits(b_value(at, row)) | bits(b_value(at + 1, row)) << 16;
        };
        const float before = float(l);
        lanes[l] = {{before, before, before, before},
                    {a(row, k), a(row + 8, k), a(row, k + 8), a(row + 8, k + 8)},
                    {b(k), b(k + 8)}};
      }
      expect_success(launch(1, kLane, 0, multiply_halves, lanes.data(), bfloat16), "mma");
      expect_product(lanes, 16, "product of halves");
    }
    std::vector<emu::MmaLane> lanes(kLane);
    for (int l = 0; l < kLane; ++l) {
      const int row = l / 4, k = l % 4;
      const auto a = [&](int r, int at) { return __float_as_uint(float(a_value(r, at))) | 0x1fff; };
      const auto b = [&](int at) { return __float_as_uint(float(b_value(at, row))) | 0x1fff; };
      const float before = float(l);
      lanes[l] = {{before, before, before, before},
                  {a(row, k), a(row + 8, k), a(row, k + 4), a(row + 8, k + 4)},
                  {b(k), b(k + 4)}};
    }
    expect_success(launch(1, kLane, 0, multiply_tf32, lanes.data()), "mma");
    expect_product(lanes, 8, "product of floats without their last bits");
  }
  emu::set_order(emu::Order::kAscending);
}

// ---- Matrices from shared memory, and copies to it.

__global__ void deal(const uint16_t* rows, uint32_t* dealt) {
  uint32_t words[4];
  emu::load_matrices(words, rows + threadIdx.x * 8);
  for (int i = 0; i < 4; ++i) dealt[threadIdx.x * 4 + i] = words[i];
}

void test_matrices() {
  alignas(16) uint16_t rows[32 * 8];  // Of matrix i, row r: 64 * i + 8 * r and the seven after.
  for (int i = 0; i < 32 * 8; ++i) rows[i] = uint16_t(i);
  uint32_t dealt[kLane * 4];
  expect_success(launch(1, kLane, 0, deal, rows, dealt), "matrices");
  for (int lane = 0; lane < kLane; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t first = uint32_t(64 * i + lane / 4 * 8 + lane % 4 * 2);
      expect(dealt[lane * 4 + i] == (first | (first + 1) << 16), "matrices");
    }
  }
}

// Two groups, of which the first is waited for, then both; and sixteen zeros.
__global__ void copy_groups(const uint64_t* from, uint64_t* seen) {
  uint64_t* shared = reinterpret_cast<uint64_t*>(emu::dynamic_shared_memory());
  emu::copy_async(shared, from, 16);
  emu::commit_copies();
  emu::copy_async(shared + 2, from + 2, 16);
  emu::copy_async(shared + 4, from, 0);
  emu::commit_copies();
  emu::wait_for_copies(1);
  seen += blockIdx.x * 12;
  for (int i = 0; i < 6; ++i) seen[i] = shared[i];
  emu::wait_for_copies(0);
  for (int i = 0; i < 6; ++i) seen[6 + i] = shared[i];
  emu::copy_async(shared, from + 2, 16);  // Never waited for, nor seen in another block.
}

void test_copies() {
  alignas(16) const uint64_t from[4] = {1, 2, 3, 4};
  constexpr uint64_t kNothing = ~uint64_t(0);
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    uint64_t seen[2][12];
    expect_success(launch(2, 1, 6 * sizeof(uint64_t), copy_groups, from, seen[0]), "copies");
    const bool early = order == emu::Order::kAscending, late = order == emu::Order::kDescending;
    for (const auto& block : seen) {
      for (int i = 0; i < 6; ++i) {
        const uint64_t copied = i < 4 ? uint64_t(i + 1) : 0;
        if (i < 2 || early) expect(block[i] == copied, "a group waited for, or made early");
        if (i >= 2 && late) expect(block[i] == kNothing, "a group on its way");
        expect(block[6 + i] == copied, "copies");
      }
    }
  }
  emu::set_order(emu::Order::kAscending);
}

// ---- Errors. After each the next launch must work.

__global__ void exit_before_barrier() {
  if (threadIdx.x != 7) __syncthreads();
}
__global__ void wait_differently() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __shfl_sync(kFullMask, 1, 0);
    if (threadIdx.x == 40) __ballot_sync(0x00000f00, 1);
    __syncthreads();
  }
}
__global__ void forget_self() { __ballot_sync(0xfffffffe, 1); }
__global__ void shuffle_with_exited(int exits) {
  if (int(threadIdx.x) == exits) return;
  __shfl_xor_sync(kFullMask, 1, 1);
}
__global__ void mix_words() {
  if (threadIdx.x < 16) {
    __shfl_xor_sync(kFullMask, 1, 1);
  } else {
    __ballot_sync(kFullMask, 1);
  }
}
__global__ void mix_barriers() {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads_or(1);
  }
}
__global__ void only_block_2_fails() {
  if (blockIdx.y == 2 && threadIdx.y == 1) return;
  __syncthreads();
}

__global__ void wait_for_nobody(unsigned* arrived) {
  if (blockIdx.x == 0) return;
  wait_for_grid(arrived, gridDim.x);
}

template <typename... Parameters, typename... Arguments>
void expect_failure(const char* words, emu::Order order, dim3 grid, dim3 block,
                    void (*kernel)(Parameters...), Arguments... arguments) {
  emu::set_order(order);
  const cudaError_t error = launch(grid, block, 64, kernel, arguments...);
  const std::string message = cudaGetErrorString(error);
  expect(error == cudaErrorLaunchFailure, std::string("no launch failure: ") + words);
  expect(message == words, "said: " + message + "\n  not: " + words);
  test_sum<float>(2, 256, "after a failure");
  emu::set_order(emu::Order::kAscending);
}

void test_failures() {
  const emu::Order up = emu::Order::kAscending, down = emu::Order::kDescending;
  for (emu::Order order : kOrders) {
    expect_failure(
        "block (0,0,0), thread (0,0,0) waits at __syncthreads() for thread (7,0,0), which has "
        "exited",
        order, 1, 64, exit_before_barrier);
    expect_failure(
        "block (0,0,0), thread (0,0,0) waits at __syncthreads() for thread (40,0,0), which "
        "waits at __ballot_sync(0x00000f00)",
        order, 1, 64, wait_differently);
    expect_failure(
        "block (0,2,0), thread (0,0,0) waits at __syncthreads() for thread (0,1,0), which has "
        "exited",
        order, dim3(1, 4), dim3(4, 2), only_block_2_fails);
  }
  expect_failure(
      "block (0,0,0), thread (0,0,0) calls __ballot_sync(0xfffffffe) with a mask that does "
      "not name itself",
      up, 1, 32, forget_self);
  expect_failure(
      "block (0,0,0), thread (4,0,0) calls __shfl_xor_sync(0xffffffff) with a mask that names "
      "thread (3,0,0), which has exited",
      up, 1, 32, shuffle_with_exited, 3);
  expect_failure(
      "block (0,0,0), thread (2,0,0) calls __shfl_xor_sync(0xffffffff) with a mask that names "
      "thread (3,0,0), which has exited",
      down, 1, 32, shuffle_with_exited, 3);
  expect_failure(
      "block (0,0,0), thread (0,0,0) waits at __shfl_xor_sync(0xffffffff) for thread (31,0,0), "
      "which has exited",
      up, 1, 32, shuffle_with_exited, 31);
  expect_failure(
      "block (0,0,0), thread (16,0,0) calls __ballot_sync(0xffffffff) where thread (0,0,0) waits "
      "at __shfl_xor_sync(0xffffffff)",
      up, 1, 32, mix_words);
  expect_failure(
      "block (0,0,0), thread (40,0,0) calls __syncthreads_or() where thread (0,0,0) waits at "
      "__syncthreads()",
      up, 1, 64, mix_barriers);
}

void test_endless_waits() {
  const std::string words = "waits in a loop with __nanosleep() for what nobody does";
  for (const bool cooperative : {false, true}) {
    unsigned arrived = 0;
    const cudaError_t error = cooperative ? launch_cooperative(3, 40, 0, wait_for_nobody, &arrived)
                                          : launch(3, 40, 0, wait_for_nobody, &arrived);
    const std::string message = cudaGetErrorString(error);
    expect(error == cudaErrorLaunchFailure && message.ends_with(words), "said: " + message);
    test_sum<float>(2, 256, "after an endless wait");
    test_cooperative_grid();
  }
}

// ---- Launches that are refused.

__global__ void nothing() {}
__global__ void nothing_more() {}

void expect_refusal(cudaError_t wanted, dim3 grid, dim3 block, size_t shared_bytes) {
  expect(launch(grid, block, shared_bytes, nothing) == wanted, "refusal");
}

void test_refusals() {
  expect_refusal(cudaErrorInvalidConfiguration, 0, 1, 0);
  expect_refusal(cudaErrorInvalidConfiguration, dim3(1, 0), 1, 0);
  expect_refusal(cudaErrorInvalidConfiguration, dim3(1, 65536), 1, 0);
  expect_refusal(cudaErrorInvalidConfiguration, dim3(1, 1, 65536), 1, 0);
  expect_refusal(cudaErrorInvalidConfiguration, 0x80000000u, 1, 0);
  expect_refusal(cudaErrorInvalidConfiguration, 1, 0, 0);
  expect_refusal(cudaErrorInvalidConfiguration, 1, 1025, 0);
  expect_refusal(cudaErrorInvalidConfiguration, 1, dim3(1, 1, 65), 0);
  expect_refusal(cudaErrorInvalidConfiguration, 1, dim3(32, 33), 0);
  expect_refusal(cudaSuccess, dim3(2, 3, 4), dim3(16, 1, 64), 48 << 10);
  expect_refusal(cudaErrorInvalidValue, 1, 1, (48 << 10) + 1);
  const auto allow = [](int bytes) {
    return cudaFuncSetAttribute(reinterpret_cast<const void*>(nothing),
                                cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  };
  expect(allow(100 << 10) == cudaSuccess, "allowed");
  expect_refusal(cudaSuccess, 1, 1, 100 << 10);
  expect_refusal(cudaErrorInvalidValue, 1, 1, (100 << 10) + 1);
  expect(launch(1, 1, 100 << 10, nothing_more) == cudaErrorInvalidValue,
         "allowed for one kernel only");
  emu::set_shared_memory_limit(64 << 10);
  expect_refusal(cudaErrorInvalidValue, 1, 1, 65 << 10);
  expect(allow(65 << 10) == cudaErrorInvalidValue, "over the limit");
  int bytes = 0;
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  expect(bytes == 64 << 10, "limit");
  emu::set_shared_memory_limit(232448);
  cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
  expect(bytes == 232448, "limit");
  emu::set_static_shared_memory(256);
  expect(launch(1, 1, (48 << 10) - 256, nothing_more) == cudaSuccess, "48 KB with the static ones");
  expect(launch(1, 1, (48 << 10) - 255, nothing_more) == cudaErrorInvalidValue, "more than 48 KB");
  expect(allow(232448 - 255) == cudaErrorInvalidValue, "over the limit with the static ones");
  expect(allow(232448 - 256) == cudaSuccess, "all that is left");
  expect_refusal(cudaSuccess, 1, 1, 232448 - 256);
  emu::set_static_shared_memory(0);
  cudaLaunchAttribute nameless = {};
  nameless.val.cooperative = 1;
  const cudaLaunchConfig_t config = {5, 1, 0, nullptr, &nameless, 1};
  expect(cudaLaunchKernelEx(&config, nothing) == cudaSuccess, "an attribute without its name");
}

void test_device() {
  int value = -1;
  expect(cudaGetDevice(&value) == cudaSuccess && value == 0, "device");
  expect(cudaSetDevice(0) == cudaSuccess && cudaSetDevice(1) != cudaSuccess, "one device");
  cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0);
  expect(value == 4, "processors");
  const auto architecture = [] {
    cudaFuncAttributes attributes = {};
    cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(mark));
    return attributes.ptxVersion;
  };
  expect(architecture() == 90, "capability");
  emu::set_architecture(75);
  expect(architecture() == 75, "capability");
  emu::set_architecture(90);
  int words[2] = {};
  cudaMemsetAsync(words, 0xff, 4, nullptr);
  expect(words[0] == -1 && words[1] == 0, "memset");
  expect(std::string(cudaGetErrorString(cudaErrorInvalidValue)) == "invalid argument", "message");
}

// ---- 16-bit floats, against double arithmetic.

// The nearest of the numbers with `mantissa` bits after the point and exponents from `lowest` on.
double nearest(double value, int mantissa, int lowest, double largest) {
  int exponent;
  std::frexp(value, &exponent);
  const double unit = std::ldexp(1, std::max(exponent - 1, lowest) - mantissa);
  const double rounded = std::nearbyint(value / unit) * unit;
  return std::fabs(rounded) > largest ? std::copysign(INFINITY, value) : rounded;
}

double decode(unsigned bits, int mantissa, int lowest, int exponents) {
  const int exponent = int(bits & 0x7fff) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
  double value = std::ldexp(fraction + (exponent ? 1 << mantissa : 0),
                            std::max(exponent - 1, 0) + lowest - mantissa);
  if (exponent == exponents) value = fraction ? NAN : INFINITY;
  return bits & 0x8000 ? -value : value;
}

bool same(double a, double b) {
  return std::isnan(a) ? std::isnan(b) : a == b && std::signbit(a) == std::signbit(b);
}

void test_half_of(float value) {
  const float half = __half2float(__float2half_rn(value));
  const float bfloat = __bfloat162float(__float2bfloat16_rn(value));
  const float largest_bfloat = std::ldexp(255.0f, 120);
  if (std::isnan(value)) {
    expect(std::isnan(half) && std::isnan(bfloat), "16 bits of a NaN");
  } else {
    expect(same(half, nearest(value, 10, -14, 65504)), "half of " + std::to_string(value));
    expect(same(bfloat, nearest(value, 7, -126, largest_bfloat)),
           "bfloat16 of " + std::to_string(value));
  }
}

void test_halves() {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    const uint16_t pattern = uint16_t(bits);
    const float half = __half2float(std::bit_cast<__half>(pattern));
    const float bfloat = __bfloat162float(std::bit_cast<__nv_bfloat16>(pattern));
    expect(same(half, decode(bits, 10, -14, 31)), "half " + std::to_string(bits));
    expect(same(bfloat, decode(bits, 7, -126, 255)), "bfloat16 " + std::to_string(bits));
    // Between each number and the next lie a tie and its neighbors, and the way back is exact.
    for (float edge : {half, bfloat}) test_half_of(edge);
    const float next = __half2float(std::bit_cast<__half>(uint16_t(bits + 1)));
    const float tie = half / 2 + next / 2;
    for (float value : {tie, std::nextafter(tie, half), std::nextafter(tie, next)})
      test_half_of(value);
  }
  std::mt19937 generator(1);
  for (int i = 0; i < 200000; ++i) {
    const unsigned bits = generator();
    test_half_of(__uint_as_float(bits));
    test_half_of(__uint_as_float((bits & 0xbfffffff) | 0x30000000));  // Near the range of half.
  }
  static_assert(sizeof(__half) == 2 && std::is_trivially_copyable_v<__half>);
  static_assert(std::is_trivially_default_constructible_v<__nv_bfloat16>);
}

// ---- Words without synchronization.

__host__ __device__ __forceinline__ float4 doubled(float4 v) {
  return {2 * v.x, 2 * v.y, 2 * v.z, 2 * v.w};
}

__global__ void vectors(const float4* in, float4* out, float2* pairs) {
  __shared__ __align__(16) float tile[4];
  *reinterpret_cast<float4*>(tile) = doubled(__ldg(in));
  *out = {tile[3], tile[2], tile[1], tile[0]};
  pairs[0] = {__ldcg(&pairs[1].y), 5};
}

void test_words() {
  const float4 in = {1, 2, 3, 4};
  float4 out;
  float2 pairs[2] = {{0, 0}, {0, 7}};
  expect_success(launch(1, 1, 0, vectors, &in, &out, pairs), "vectors");
  expect(out.x == 8 && out.y == 6 && out.z == 4 && out.w == 2, "vectors");
  expect(pairs[0].x == 7 && pairs[0].y == 5, "pairs");
  static_assert(alignof(float2) == 8 && alignof(float4) == 16);
  expect(__popc(0xf0f0u) == 8 && __clz(1) == 31 && __clz(0) == 32, "bits");
  expect(__byte_perm(0x33221100, 0x77665544, 0x5410) == 0x55441100 &&
             __byte_perm(0x33221100, 0x77665544, 0x7632) == 0x77663322,
         "bytes");
  const __half2 halves = __floats2half2_rn(1, -2);
  const __nv_bfloat162 bfloats = __floats2bfloat162_rn(1, -2);
  expect(halves.x.bits == 0x3c00 && halves.y.bits == 0xc000, "two halves");
  expect(bfloats.x.bits == 0x3f80 && bfloats.y.bits == 0xc000, "two bfloat16");
  expect(__float_as_uint(1.0f) == 0x3f800000 && __uint_as_float(0x40000000) == 2,
         "reinterpretation");
  // 1 + 2^-12 squared is not a float: fused with the difference it would leave 2^-24.
  const float x = 1 + 0x1p-12f;
  expect(__fmul_rn(x, x) - (1 + 0x1p-11f) == 0 && fmaf(x, x, -(1 + 0x1p-11f)) == 0x1p-24f,
         "fusing");
  expect(__dmul_rn(2.0, 3.0) == 6 && min(1, 2) == 1 && min(2, 1) == 1, "arithmetic");
  expect(cbrtf(8) == 2 && exp2f(3) == 8, "functions");
  expect(fma(2.0, 3.0, 1.0) == 7 && rintf(2.5f) == 2 && log2f(8) == 3 && fabsf(-1.0f) == 1,
         "functions");
}

// ---- Two OS threads.

void test_two_launchers() {
  int wrong[2] = {};
  const auto launcher = [&wrong](int id) {
    for (int i = 0; i < 20; ++i) {
      std::vector<float> values(512, float(id + 1)), sums(4);
      launch(4, 128, 512, sum_blocks<float>, values.data(), sums.data());
      for (float sum : sums) wrong[id] += sum != 128 * (id + 1);
    }
  };
  std::thread other(launcher, 1);
  launcher(0);
  other.join();
  expect(wrong[0] == 0 && wrong[1] == 0, "two launchers");
}

// ---- Wrong kernels, for the sanitizers.

__global__ void race_shared(int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = shared[63 - threadIdx.x];  // A __syncthreads() is missing.
}
__global__ void race_warps(int* out) {
  __shared__ int shared[64];
  shared[threadIdx.x] = threadIdx.x;
  __syncwarp();
  out[threadIdx.x] = shared[threadIdx.x ^ 32];
}
__global__ void race_blocks(int* out) {
  if (threadIdx.x == 0) *out = blockIdx.x;
}
__global__ void race_far(int* out) {
  if (blockIdx.x % 2 == 0) out[threadIdx.x] = blockIdx.x;
}
__global__ void race_shuffle(int* out) {
  int* const shared = reinterpret_cast<int*>(emu::dynamic_shared_memory());
  shared[threadIdx.x] = threadIdx.x;
  __shfl_sync(kFullMask, 0, 0);  // All have come, but their stores need not be seen.
  __ballot_sync(kFullMask, 1);
  out[threadIdx.x] = shared[threadIdx.x ^ 1];
}
__global__ void overrun(int* out) {
  int* const shared = reinterpret_cast<int*>(emu::dynamic_shared_memory());
  shared[threadIdx.x + 1] = 1;
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x];
}
__global__ void misaligned(const float* in, float4* out) {
  *out = *reinterpret_cast<const float4*>(in + 1);
}

// The barrier of a grid without its fences.
__global__ void race_grid(int* out, unsigned* arrived) {
  if (threadIdx.x == 0) out[blockIdx.x] = 1;
  __syncthreads();
  if (threadIdx.x == 0) {
    atomicAdd(arrived, 1u);
    while (atomicAdd(arrived, 0u) < gridDim.x) __nanosleep(32);
  }
  __syncthreads();
  out[10 + blockIdx.x] = out[(blockIdx.x + 1) % gridDim.x];
}

int run_wrong(const std::string& name) {
  std::vector<int> out(64);
  alignas(16) float floats[8] = {};
  float4 vector;
  if (name == "race-shared") launch(1, 64, 0, race_shared, out.data());
  if (name == "race-warps") launch(1, 64, 0, race_warps, out.data());
  if (name == "race-blocks") launch(2, 64, 0, race_blocks, out.data());
  for (int i = 0; name == "race-far" && i < 2; ++i) launch(4, 64, 0, race_far, out.data());
  if (name == "race-shuffle") launch(1, 64, 64 * sizeof(int), race_shuffle, out.data());
  unsigned arrived = 0;
  if (name == "race-grid") launch_cooperative(3, 1, 0, race_grid, out.data(), &arrived);
  if (name == "overrun") launch(1, 64, 64 * sizeof(int), overrun, out.data());
  if (name == "misaligned") launch(1, 1, 0, misaligned, floats, &vector);
  std::printf("%s: ran to its end\n", name.c_str());
  return 0;
}

// ---- Costs.

__global__ void barriers(int count) {
  for (int i = 0; i < count; ++i) __syncthreads();
}
__global__ void shuffles(int count, float* out) {
  float value = float(threadIdx.x);
  for (int i = 0; i < count; ++i) value += __shfl_xor_sync(kFullMask, value, 1);
  out[blockIdx.x * blockDim.x + threadIdx.x] = value;
}

template <typename Body>
double seconds_of(Body body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

int print_times() {
  constexpr int kThreads = 256;
  const int count = 100, blocks = 50;
  std::vector<float> out(kThreads * blocks);
  launch(2, kThreads, 0, nothing);  // Makes the fibers.
  for (emu::Order order : kOrders) {
    emu::set_order(order);
    const double empty = seconds_of([&] { launch(blocks, kThreads, 0, nothing); });
    const double barrier = seconds_of([&] { launch(blocks, kThreads, 0, barriers, count); });
    const double shuffle =
        seconds_of([&] { launch(blocks, kThreads, 0, shuffles, count, out.data()); });
    const double each = 1e9 / (double(blocks) * kThreads * count);
    std::printf("order %d: block of %d %.1f us, __syncthreads %.1f ns, shuffle %.1f ns a thread\n",
                int(order), kThreads, empty / blocks * 1e6, barrier * each, shuffle * each);
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count > 1) {
    return std::string(arguments[1]) == "time" ? print_times() : run_wrong(arguments[1]);
  }
  test_indices();
  test_sums();
  test_orders();
  test_poison();
  test_shuffles();
  test_parts();
  test_small_warp();
  test_fence();
  test_block_votes();
  test_warp_barrier();
  test_cooperative_grid();
  test_cooperative_limits();
  test_tensor_cores();
  test_matrices();
  test_copies();
  test_failures();
  test_endless_waits();
  test_refusals();
  test_device();
  test_halves();
  test_words();
  test_two_launchers();
  std::printf("emulator: %d failures\n", failures);
  return failures != 0;
}
