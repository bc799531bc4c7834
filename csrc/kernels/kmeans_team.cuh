// K-Means of one image by several thread blocks, each of which keeps a tile of the points in its
// shared memory; all of them are resident at once. An iteration: every block labels its points and
// writes its sums, one for each tile; the blocks of the image wait for one another, once; then each
// adds all sums up, in the same order, and moves all centers, so that all have the same bits and
// agree on whether to go on. An image's result does not depend on how many blocks there are.
#pragma once

#include "kmeans.cuh"

namespace disco_fast {

constexpr int kTeamTile = 256;  // points

struct KMeansTeam {
  int tiles;                 // of an image
  int blocks;                // that work on an image, at most a tile each
  int groups;                // of blocks
  unsigned* arrived;         // [N], 0 at first: blocks that have come to a barrier of the image
  unsigned char* workspace;  // [N, team_bytes]
};

// Of the sums of an image's tiles, those of an iteration beside those of the one before it.
struct TeamSums {
  float* sums;  // [tiles, K, 64]
  int* counts;  // [tiles, K]
  int* flags;   // [tiles]: whether a label has changed
};
__host__ __device__ constexpr int64_t team_floats(int64_t tiles, int64_t clusters) {
  return round_up(tiles * (clusters * (kTokenDim + 1) + 1), kDims);
}
__host__ __device__ constexpr int64_t team_bytes(int64_t tiles, int64_t clusters) {
  return 2 * team_floats(tiles, clusters) * int64_t(sizeof(float));
}

typedef KMeansImage<float, true, kTokenDim, false> TeamImage;
static_assert(kJobDims == kTokenDim, "a warp has a whole cluster");

__device__ __forceinline__ TeamSums team_sums(const KMeansTeam& team, const TeamImage& m,
                                              int64_t image, int parity) {
  TeamSums s;
  s.sums = reinterpret_cast<float*>(team.workspace + image * team_bytes(team.tiles, m.clusters)) +
           parity * team_floats(team.tiles, m.clusters);
  s.counts = reinterpret_cast<int*>(s.sums + int64_t(team.tiles) * m.clusters * kTokenDim);
  s.flags = s.counts + team.tiles * m.clusters;
  return s;
}

// The tile's members of every cluster, added up in order.
__device__ __forceinline__ void add_tile(const TeamImage& m, const KMeansPlan& plan,
                                         const TeamSums& s, int tile, int count) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, d = lane * kPair;
  int* list = m.lists + warp * list_size(plan.tile);
  for (int k = warp; k < m.clusters; k += kMeansWarps) {
    const int listed = list_members(m, plan, k, count, list);
    Pack<float, kPair> total = {};
    add_listed(list, listed, m.points + d, total);
    store_pack(s.sums + (int64_t(tile) * m.clusters + k) * kTokenDim + d, total);
    if (lane == 0) s.counts[tile * m.clusters + k] = listed;
  }
}

// Moves every center to the mean over all tiles. Whether one of the thread's clusters is empty.
__device__ __forceinline__ bool move_centers(const TeamImage& m, const KMeansTeam& team,
                                             const TeamSums& s) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, d = lane * kPair;
  const int stride = m.clusters * kTokenDim / kPair;  // of pairs
  bool empty = false;
  for (int k = warp; k < m.clusters; k += kMeansWarps) {
    const auto* sums = reinterpret_cast<const float2*>(s.sums + k * kTokenDim + d);
    Pack<float, kPair> total = {};
    int members = 0;
#pragma unroll 1  // the first turn is mostly the last
    for (int tile = lane; tile < team.tiles; tile += kWarp) {
      members += __ldcg(s.counts + tile * m.clusters + k);
    }
    members = warp_sum(members);
#pragma unroll 8
    for (int tile = 0; tile < team.tiles; ++tile) {
      const float2 value = __ldcg(sums + int64_t(tile) * stride);
      total.value[0] += value.x;
      total.value[1] += value.y;
    }
    const int center = k * m.center_pitch() + d;
    const float squares = warp_sum(move_center(m.centers + center, members, total));
    store_pack(m.next + center, total);
    empty = empty || members == 0;
    if (lane == 0) {
      m.counts[k] = members;
      m.moved[k] = squares;
    }
  }
  return empty;
}

__device__ __forceinline__ int iterate_together(TeamImage& m, const KMeansPlan& plan,
                                                const KMeansTeam& team, int64_t image, int rank,
                                                int64_t max_iter, float tol, Best<float>* board) {
  bool was_empty = false;  // a cluster, in the last iteration
  unsigned wanted = 0;
  for (int64_t iteration = 1;; ++iteration) {
    const TeamSums s = team_sums(team, m, image, int(iteration % 2));
    for (int tile = rank; tile < team.tiles; tile += team.blocks) {
      const int first = tile * plan.tile, count = min(m.points_count - first, plan.tile);
      if (iteration == 1 || !m.kept) {
        load_points(m, plan, first, count);
        __syncthreads();
      }
      const bool changed = __syncthreads_or(assign(m, plan, first, count));
      add_tile(m, plan, s, tile, count);
      if (threadIdx.x == 0) s.flags[tile] = changed;
      if (!m.kept) __syncthreads();  // the tile has been read
    }
    wait_for_image(team.arrived + image, wanted += team.blocks);
    bool changed = iteration == 1;
    for (int tile = threadIdx.x; tile < team.tiles; tile += kMeansThreads) {
      changed = changed || __ldcg(s.flags + tile);
    }
    changed = __syncthreads_or(changed);
    // The same members have the same means: the centers would not move, now or later.
    if (!changed && !was_empty) return int(0.0f < tol ? iteration : max_iter);
    was_empty = __syncthreads_or(move_centers(m, team, s));
    if (was_empty) {
      refill(m, plan, board);
      wait_for_image(team.arrived + image, wanted += team.blocks);  // all labels have been read
    }
    float* const next = m.next;
    m.next = m.centers;
    m.centers = next;
    const float shift = total_shift(m);
    if (shift * shift < tol || iteration == max_iter) return int(iteration);
  }
}

// Grid: blocks of an image x groups.
__global__ void __launch_bounds__(kMeansThreads, 1)
    kmeans_team_kernel(const KMeansArgs a, const KMeansPlan plan, const KMeansTeam team) {
  const int rank = int(blockIdx.x) % team.blocks;
  for (int64_t image = blockIdx.x / team.blocks; image < a.images; image += team.groups) {
    TeamImage m = lay_out<TeamImage>(a, plan, image);
    m.kept = team.tiles <= team.blocks;
    const int64_t* init = a.init + image * a.clusters;
    if (is_outside(a, init)) {
      if (rank == 0) refuse<float>(a, image);
      continue;
    }
    prepare(m, plan, init);
    for (int tile = rank; tile < team.tiles; tile += team.blocks) {
      const int first = tile * plan.tile, end = min(m.points_count, first + plan.tile);
      for (int p = first + int(threadIdx.x); p < end; p += kMeansThreads) m.out[p] = -1;
    }
    __syncthreads();  // all labels are there: those behind a short tile are written again
    auto* board = reinterpret_cast<Best<float>*>(dynamic_shared<unsigned char>() + plan.board);
    const int iterations =
        iterate_together(m, plan, team, image, rank, a.max_iter, float(a.tol), board);
    // Before the next image is prepared, all threads pass a barrier: they look at its `init`.
    if (rank == 0) finish(m, a, image, iterations);
  }
}

}  // namespace disco_fast
