// K-Means of one image by one thread block: every iteration, the convergence test and the refill of
// empty clusters in one launch, so that the host never waits and the launch can be captured in a
// CUDA graph. An image's result depends on nothing but the image.
//
// Points pass through shared memory in tiles; where all fit into one (some 700 of 64 floats), they
// are loaded once, else again from L2 in every iteration.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kMeansThreads = 512;
constexpr int kMeansWarps = kMeansThreads / kWarp;
constexpr int kDims = 4;    // dimensions read at a time; rows are padded to them
constexpr int kPoints = 4;  // points that a thread compares with
// Centers at a time: with four, eight reads of shared memory feed 128 operations. Doubles, and
// centers in L2, take more registers. There are rows for a multiple of kMostCenters.
constexpr int kMostCenters = 4;
template <class W, bool kShared>
constexpr int kCenters = sizeof(W) == 8 || !kShared ? 2 : kMostCenters;

// How the work is laid out; a function of the shape and of the shared memory at hand.
struct KMeansPlan {
  int pitch;   // elements of a row: an odd number of packs, against bank conflicts
  int tile;    // points in shared memory
  int slices;  // parts of a tile whose members are added up apart
  // Threads that share kPoints points: each takes a part of the dimensions, and of the centers.
  // Powers of two, no more than a warp together.
  int dim_lanes, center_lanes;
  bool packed;        // rows of the points lie where packs can be read
  bool shared;        // centers and sums are in shared memory, else in the workspace
  size_t bytes;       // of dynamic shared memory
  int64_t workspace;  // elements for an image
};

// Squared distance of two padded rows.
template <class W>
__device__ __forceinline__ W add_squares(const Pack<W, kDims>& a, const Pack<W, kDims>& b,
                                         W total) {
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const W difference = a.value[i] - b.value[i];
    total = fma(difference, difference, total);
  }
  return total;
}

// What the threads of a block work on together.
template <class W, bool kShared>
struct KMeansImage {
  const W* data;  // [P, D]
  W* points;      // [tile, pitch]
  W* centers;     // [K, pitch]
  W* sums;        // [slices, K, pitch]
  W* shift;       // [K]
  int* counts;    // [K]
  int* labels;    // [tile]
  int* spare;     // [K]: the point that an empty cluster moves to
  int64_t* out;   // labels [P]
  int points_count, dims, clusters;
};

// Points first..first + count - 1 to shared memory, padded with zeros.
template <class W, bool kShared>
__device__ __forceinline__ void load_points(const KMeansImage<W, kShared>& m,
                                            const KMeansPlan& plan, int64_t first, int count) {
  const W* from = m.data + first * m.dims;
  if (plan.packed) {
    const int packs = m.dims / kDims;
    for (int i = threadIdx.x; i < count * packs; i += kMeansThreads) {
      const int p = i / packs, d = (i - p * packs) * kDims;
      store_pack(m.points + p * plan.pitch + d, load_pack<kDims>(from + int64_t(p) * m.dims + d));
    }
    return;
  }
  const int padded = int(ceil_div(m.dims, kDims)) * kDims;
  for (int i = threadIdx.x; i < count * padded; i += kMeansThreads) {
    const int p = i / padded, d = i - p * padded;
    m.points[p * plan.pitch + d] = d < m.dims ? from[int64_t(p) * m.dims + d] : W(0);
  }
}

// Squared distances of points p, p + 1, .. to centers k, k + 1, ..: the thread's part of the
// dimensions. There are rows for all of them; what the last ones hold is not used.
template <class W, bool kShared>
__device__ __forceinline__ void part_distances(const KMeansImage<W, kShared>& m,
                                               const KMeansPlan& plan, int p, int k,
                                               W (*total)[kCenters<W, kShared>]) {
  const int begin = int(threadIdx.x) % plan.dim_lanes * kDims, step = plan.dim_lanes * kDims;
  const W *points = m.points + p * plan.pitch, *centers = m.centers + k * plan.pitch;
#pragma unroll
  for (int i = 0; i < kPoints; ++i) {
#pragma unroll
    for (int j = 0; j < kCenters<W, kShared>; ++j) total[i][j] = 0;
  }
#pragma unroll 1  // more takes registers that are not there
  for (int d = begin; d < m.dims; d += step) {
    Pack<W, kDims> x[kPoints];
#pragma unroll
    for (int i = 0; i < kPoints; ++i) x[i] = load_pack<kDims>(points + i * plan.pitch + d);
#pragma unroll
    for (int j = 0; j < kCenters<W, kShared>; ++j) {
      const Pack<W, kDims> c = load_pack<kDims>(centers + j * plan.pitch + d);
#pragma unroll
      for (int i = 0; i < kPoints; ++i) total[i][j] = add_squares(x[i], c, total[i][j]);
    }
  }
}

// Nearest center of each point of the tile, the first of several.
template <class W, bool kShared>
__device__ __forceinline__ void assign(const KMeansImage<W, kShared>& m, const KMeansPlan& plan,
                                       int64_t first, int count) {
  const int lanes = plan.dim_lanes * plan.center_lanes, t = threadIdx.x;
  const int center_lane = t / plan.dim_lanes % plan.center_lanes;
  // All lanes of a warp take part in every round, for they shuffle.
  for (int base = 0; base < count; base += kMeansThreads / lanes * kPoints) {
    const int mine = base + t / lanes * kPoints, p = mine < count ? mine : 0;
    W nearest[kPoints];
    int label[kPoints];
#pragma unroll
    for (int i = 0; i < kPoints; ++i) {
      nearest[i] = W(INFINITY);
      label[i] = 0;
    }
    for (int group = 0; group < m.clusters; group += plan.center_lanes * kCenters<W, kShared>) {
      const int wanted = group + center_lane * kCenters<W, kShared>,
                k = wanted < m.clusters ? wanted : 0;
      W total[kPoints][kCenters<W, kShared>];
      part_distances(m, plan, p, k, total);
#pragma unroll
      for (int i = 0; i < kPoints; ++i) {
#pragma unroll
        for (int j = 0; j < kCenters<W, kShared>; ++j) {
          for (int offset = plan.dim_lanes / 2; offset > 0; offset /= 2) {
            total[i][j] += __shfl_xor_sync(kAllLanes, total[i][j], offset);
          }
          if (k + j < m.clusters && total[i][j] < nearest[i]) {
            nearest[i] = total[i][j];
            label[i] = k + j;
          }
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kPoints; ++i) {
      for (int offset = lanes / 2; offset >= plan.dim_lanes; offset /= 2) {
        const W other = __shfl_xor_sync(kAllLanes, nearest[i], offset);
        const int other_label = __shfl_xor_sync(kAllLanes, label[i], offset);
        if (other < nearest[i] || (other == nearest[i] && other_label < label[i])) {
          nearest[i] = other;
          label[i] = other_label;
        }
      }
      if (t % lanes == 0 && mine + i < count) {
        m.labels[p + i] = label[i];
        m.out[first + p + i] = label[i];
      }
    }
  }
}

// Adds the members of every cluster in the tile to the sums. A warp takes 32 dimensions of one
// slice of the points; ballots find a cluster's members, which are added in their order.
template <class W, bool kShared>
__device__ __forceinline__ void accumulate(const KMeansImage<W, kShared>& m, const KMeansPlan& plan,
                                           bool first_tile, int count) {
  constexpr int kAhead = 4;  // members loaded before the first is added
  const int lane = threadIdx.x % kWarp, blocks = int(ceil_div(m.dims, kWarp));
  const int slice_size = int(ceil_div(ceil_div(count, kWarp), plan.slices)) * kWarp;
  for (int job = threadIdx.x / kWarp; job < plan.slices * blocks; job += kMeansWarps) {
    const int slice = job / blocks, d = job % blocks * kWarp + lane;
    const int begin = slice * slice_size,
              end = begin + slice_size < count ? begin + slice_size : count;
    const W* column = m.points + (d < m.dims ? d : 0);
    for (int k = 0; k < m.clusters; ++k) {
      W total = 0;
      int members = 0;
      for (int p = begin; p < end; p += kWarp) {
        const bool member = p + lane < end && m.labels[p + lane] == k;
        unsigned mask = __ballot_sync(kAllLanes, member);
        members += __popc(mask);
        while (mask != 0) {
          W value[kAhead];
#pragma unroll
          for (int i = 0; i < kAhead; ++i) {
            value[i] = mask != 0 ? column[(p + __ffs(int(mask)) - 1) * plan.pitch] : W(0);
            mask &= mask - 1;
          }
#pragma unroll
          for (int i = 0; i < kAhead; ++i) total += value[i];
        }
      }
      if (d < m.dims) {
        W* sum = m.sums + (slice * m.clusters + k) * plan.pitch + d;
        *sum = first_tile ? total : *sum + total;
      }
      if (job % blocks == 0 && lane == 0 && members > 0) atomicAdd(m.counts + k, members);
    }
  }
}

// Squared distance of point p to its own center.
template <class W, bool kShared>
__device__ __forceinline__ W own_distance(const KMeansImage<W, kShared>& m, const KMeansPlan& plan,
                                          int64_t p) {
  const W *point = m.data + p * m.dims, *center = m.centers + m.out[p] * plan.pitch;
  W total = 0;
  for (int d = 0; d < m.dims; ++d) {
    const W difference = point[d] - center[d];
    total = fma(difference, difference, total);
  }
  return total;
}

// Gives every empty cluster, in order, the next of the points that lie farthest from their own
// center. Rare, so it may be slow.
template <class W, bool kShared>
__device__ __forceinline__ void find_spares(const KMeansImage<W, kShared>& m,
                                            const KMeansPlan& plan, Best<W>* board) {
  Best<W> last = {W(INFINITY), -1};
  for (int k = 0; k < m.clusters; ++k) {
    if (m.counts[k] != 0) continue;
    Best<W> mine = {W(-1), m.points_count};
    for (int64_t p = threadIdx.x; p < m.points_count; p += kMeansThreads) {
      const Best<W> candidate = {own_distance(m, plan, p), p};
      if (last.beats(candidate) && candidate.beats(mine)) mine = candidate;
    }
    __syncthreads();  // the board has been read
    last = block_best(mine, board);
    if (threadIdx.x == 0) m.spare[k] = int(last.index < m.points_count ? last.index : 0);
  }
  __syncthreads();
}

// Moves the centers to the means of their members, a warp each, and notes how far they went.
template <class W, bool kShared>
__device__ __forceinline__ void move_centers(const KMeansImage<W, kShared>& m,
                                             const KMeansPlan& plan) {
  const int lane = threadIdx.x % kWarp;
  for (int k = threadIdx.x / kWarp; k < m.clusters; k += kMeansWarps) {
    const int count = m.counts[k];
    W squares = 0;
    for (int d = lane; d < m.dims; d += kWarp) {
      W target = 0;
      if (count == 0) {
        target = m.data[int64_t(m.spare[k]) * m.dims + d];
      } else {
        for (int s = 0; s < plan.slices; ++s) {
          target += m.sums[(s * m.clusters + k) * plan.pitch + d];
        }
        target /= W(count);
      }
      W* center = m.centers + k * plan.pitch + d;
      const W step = target - *center;
      squares = fma(step, step, squares);
      *center = target;
    }
    squares = warp_sum(squares);
    if (lane == 0) m.shift[k] = sqrt(squares);
  }
}

// Sum of the shifts; every thread gets the same bits.
template <class W, bool kShared>
__device__ __forceinline__ W total_shift(const KMeansImage<W, kShared>& m) {
  W total = 0;
  for (int k = threadIdx.x % kWarp; k < m.clusters; k += kWarp) total += m.shift[k];
  return warp_sum(total);
}

template <class W, bool kShared>
__device__ __forceinline__ int iterate(const KMeansImage<W, kShared>& m, const KMeansPlan& plan,
                                       int64_t max_iter, W tol, Best<W>* board) {
  const int t = threadIdx.x;
  for (int64_t iteration = 1;; ++iteration) {
    for (int first = 0; first < m.points_count; first += plan.tile) {
      const int left = m.points_count - first, count = left < plan.tile ? left : plan.tile;
      if (iteration == 1 || plan.tile < m.points_count) {
        load_points(m, plan, first, count);
        __syncthreads();
      }
      assign(m, plan, first, count);
      __syncthreads();
      accumulate(m, plan, first == 0, count);
      __syncthreads();
    }
    bool empty = false;
    for (int k = t; k < m.clusters; k += kMeansThreads) empty = empty || m.counts[k] == 0;
    if (__syncthreads_or(empty)) find_spares(m, plan, board);
    move_centers(m, plan);
    __syncthreads();
    const W shift = total_shift(m);
    if (shift * shift < tol || iteration == max_iter) return int(iteration);
    for (int k = t; k < m.clusters; k += kMeansThreads) m.counts[k] = 0;
  }
}

// Dynamic shared memory in the order of KMeansImage's members; see `plan_for`.
template <class W, bool kShared>
__device__ __forceinline__ KMeansImage<W, kShared> lay_out(const KMeansArgs& a,
                                                           const KMeansPlan& plan, int64_t image) {
  const int64_t row = plan.pitch, clusters = a.clusters;
  const int64_t center_rows = round_up(clusters, kMostCenters);
  KMeansImage<W, kShared> m;
  m.data = static_cast<const W*>(a.data) + image * a.points * a.dims;
  m.out = a.labels + image * a.points;
  m.points = dynamic_shared<W>();
  W* next = m.points + round_up(plan.tile, kPoints) * row;
  if constexpr (kShared) {
    m.centers = next;
    m.sums = m.centers + center_rows * row;
    next = m.sums + plan.slices * clusters * row;
  } else {
    m.centers = static_cast<W*>(a.workspace) + image * plan.workspace;
    m.sums = m.centers + center_rows * row;
  }
  m.shift = next;
  m.counts = reinterpret_cast<int*>(m.shift + clusters);
  m.spare = m.counts + clusters;
  m.labels = m.spare + clusters;
  m.points_count = int(a.points);
  m.dims = int(a.dims);
  m.clusters = int(clusters);
  return m;
}

// Grid: images.
template <class W, bool kShared>
__global__ void __launch_bounds__(kMeansThreads, 1)
    kmeans_kernel(const KMeansArgs a, const KMeansPlan plan) {
  __shared__ Best<W> board[kMeansWarps];
  const int64_t image = blockIdx.x;
  const KMeansImage<W, kShared> m = lay_out<W, kShared>(a, plan, image);
  const int64_t* init = a.init + image * a.clusters;
  const int t = threadIdx.x;
  W* centers = static_cast<W*>(a.centers) + image * a.clusters * a.dims;

  bool outside = false;
  for (int k = t; k < m.clusters; k += kMeansThreads) {
    outside = outside || init[k] < 0 || init[k] >= a.points;
    m.counts[k] = 0;
  }
  if (__syncthreads_or(outside)) {
    for (int64_t p = t; p < a.points; p += kMeansThreads) m.out[p] = -1;
    for (int64_t i = t; i < a.clusters * a.dims; i += kMeansThreads) centers[i] = W(NAN);
    if (t == 0) a.iterations[image] = -1;
    return;
  }
  const int padded = int(ceil_div(m.dims, kDims)) * kDims;
  for (int i = t; i < m.clusters * padded; i += kMeansThreads) {
    const int k = i / padded, d = i % padded;
    m.centers[k * plan.pitch + d] = d < m.dims ? m.data[init[k] * m.dims + d] : W(0);
  }  // the barrier after the first points makes them known
  const int iterations = iterate(m, plan, a.max_iter, W(a.tol), board);
  for (int i = t; i < m.clusters * m.dims; i += kMeansThreads) {
    centers[i] = m.centers[i / m.dims * plan.pitch + i % m.dims];
  }
  if (t == 0) a.iterations[image] = iterations;
}

}  // namespace disco_fast
