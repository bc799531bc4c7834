// Anchors and their colours in one launch: the largest superpixel of each cluster, its ten most
// probable bins, and up to three unlike colours among these.
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kAnchorThreads = 256;
constexpr int kAnchorWarps = kAnchorThreads / kWarp;

// Argmax over superpixels of (in the cluster) + 0.01 * size, by a warp.
template <class W>
__device__ __forceinline__ int64_t largest_member(const AnchorArgs& a, int64_t image, int cluster) {
  const int64_t* labels = a.labels + image * a.points;
  const W* sizes = static_cast<const W*>(a.sizes) + image * a.points;
  Best<W> mine = {W(-1), a.points};
  for (int64_t p = threadIdx.x % kWarp; p < a.points; p += kWarp) {
    // Two roundings, as in the specification: a fused multiply-add could break a tie.
    W bonus;
    if constexpr (sizeof(W) == 8) {
      bonus = __dmul_rn(sizes[p], 0.01);
    } else {
      bonus = __fmul_rn(sizes[p], 0.01f);
    }
    const Best<W> candidate = {W(labels[p] == cluster) + bonus, p};
    if (candidate.beats(mine)) mine = candidate;
  }
  const int64_t index = warp_best(mine).index;
  return index < a.points ? index : 0;
}

// Lane r gets the r-th most probable of the bins, r < kTopBins; of equal ones the lowest first.
template <class W>
__device__ __forceinline__ int rank_bins(const W* logits, int64_t bins) {
  const int lane = threadIdx.x % kWarp;
  Best<W> last = {W(INFINITY), -1};
  int ranked = 0;
  for (int rank = 0; rank < kTopBins; ++rank) {
    Best<W> mine = {-W(INFINITY), bins};
    for (int64_t b = lane; b < bins; b += kWarp) {
      const Best<W> candidate = {logits[b], b};
      if (last.beats(candidate) && candidate.beats(mine)) mine = candidate;
    }
    last = warp_best(mine);
    if (lane == rank) ranked = int(last.index < bins ? last.index : 0);
  }
  return ranked;
}

// Picks of an anchor: the most probable bin, the one farthest from it in ab, the one with the
// largest summed distance to both. Lane r holds the r-th ranked bin. Bin centers are whole numbers,
// so that in fp64 equal distances are equal, and the first maximum is the same everywhere.
__device__ __forceinline__ void pick_colors(const AnchorArgs& a, int64_t image, int cluster,
                                            int ranked) {
  const int lane = threadIdx.x % kWarp;
  const bool candidate = lane < kTopBins && lane < a.bins;
  const double x = a.bin_centers[ranked * 2], y = a.bin_centers[ranked * 2 + 1];
  double distance = 0;
  int pick = 0;
  for (int v = 0; v < int(a.variants); ++v) {
    if (v > 0) {
      const double dx = x - __shfl_sync(kAllLanes, x, pick),
                   dy = y - __shfl_sync(kAllLanes, y, pick);
      distance += sqrt(dx * dx + dy * dy);
      const Best<double> mine = {candidate ? distance : -1.0, lane};
      pick = int(warp_best(mine).index);
    }
    const int bin = __shfl_sync(kAllLanes, ranked, pick);
    if (lane == 0) a.colors[(image * a.variants + v) * a.clusters + cluster] = bin;
  }
}

// Grid: images; a warp per anchor.
template <class W>
__global__ void __launch_bounds__(kAnchorThreads) anchors_kernel(const AnchorArgs a) {
  const int64_t image = blockIdx.x;
  for (int k = threadIdx.x / kWarp; k < int(a.clusters); k += kAnchorWarps) {
    int64_t* anchor = a.anchors + image * a.clusters + k;
    const int64_t chosen = a.labels == nullptr ? *anchor : largest_member<W>(a, image, k);
    if (a.labels != nullptr && threadIdx.x % kWarp == 0) *anchor = chosen;
    if (a.logits == nullptr) continue;
    // An anchor given from outside the image would be read from outside the tensor.
    const int64_t inside = chosen < 0 || chosen >= a.points ? 0 : chosen;
    const W* logits = static_cast<const W*>(a.logits) + (image * a.points + inside) * a.bins;
    pick_colors(a, image, k, rank_bins(logits, a.bins));
  }
}

}  // namespace disco_fast
