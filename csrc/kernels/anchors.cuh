// Anchors and their colors in one launch: the largest superpixel of each cluster, the color that
// its bins' scores mean, and up to two colors unlike it among its ten most probable bins.
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

// Of a superpixel's bin.
template <class W>
__device__ __forceinline__ W score(const AnchorArgs& a, const W* logits, int64_t bin) {
  return a.offset == nullptr ? logits[bin] : logits[bin] + static_cast<const W*>(a.offset)[bin];
}

// Lane r gets the r-th most probable of the bins, r < ranks; of equal ones the lowest first.
template <class W>
__device__ __forceinline__ int rank_bins(const AnchorArgs& a, const W* logits, int ranks) {
  const int lane = threadIdx.x % kWarp;
  const int64_t bins = a.bins;
  Best<W> last = {W(INFINITY), -1};
  int ranked = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    Best<W> mine = {-W(INFINITY), bins};
    for (int64_t b = lane; b < bins; b += kWarp) {
      const Best<W> candidate = {score(a, logits, b), b};
      if (last.beats(candidate) && candidate.beats(mine)) mine = candidate;
    }
    last = warp_best(mine);
    if (lane == rank) ranked = int(last.index < bins ? last.index : 0);
  }
  return ranked;
}

// The bin nearest to the annealed mean of the bins' centers, by a warp; `best` is the most probable
// one. In fp64, whatever W is: the mean must be the same everywhere, or nearly so.
template <class W>
__device__ __forceinline__ int mean_bin(const AnchorArgs& a, const W* logits, int best) {
  const int lane = threadIdx.x % kWarp;
  const double most = score(a, logits, best), sharpness = 1 / a.temperature;
  double total = 0, x = 0, y = 0;
  for (int64_t b = lane; b < a.bins; b += kWarp) {
    const double share = exp((double(score(a, logits, b)) - most) * sharpness);
    total += share;
    x += share * a.bin_centers[2 * b];
    y += share * a.bin_centers[2 * b + 1];
  }
  const double parts = kColorParts / warp_sum(total);
  x = rint(warp_sum(x) * parts) / kColorParts;
  y = rint(warp_sum(y) * parts) / kColorParts;
  Best<double> nearest = {-INFINITY, a.bins};
  for (int64_t b = lane; b < a.bins; b += kWarp) {
    const double dx = a.bin_centers[2 * b] - x, dy = a.bin_centers[2 * b + 1] - y;
    const Best<double> candidate = {-(dx * dx + dy * dy), b};
    if (candidate.beats(nearest)) nearest = candidate;
  }
  nearest = warp_best(nearest);
  return int(nearest.index < a.bins ? nearest.index : 0);
}

// Picks of an anchor: `first`, the ranked bin farthest from it in ab, the one with the largest
// summed distance to both. Lane r holds the r-th ranked bin. Bin centers are whole numbers, so that
// in fp64 equal distances are equal, and the first maximum is the same everywhere.
__device__ __forceinline__ void pick_colors(const AnchorArgs& a, int64_t image, int cluster,
                                            int first, int ranked) {
  const int lane = threadIdx.x % kWarp;
  const bool candidate = lane < kTopBins && lane < a.bins;
  const double x = a.bin_centers[ranked * 2], y = a.bin_centers[ranked * 2 + 1];
  double distance = 0;
  int chosen = first;
  for (int v = 0; v < int(a.variants); ++v) {
    if (v > 0) {
      const double dx = x - a.bin_centers[chosen * 2], dy = y - a.bin_centers[chosen * 2 + 1];
      distance += sqrt(dx * dx + dy * dy);
      const Best<double> mine = {candidate ? distance : -1.0, lane};
      chosen = __shfl_sync(kAllLanes, ranked, int(warp_best(mine).index));
    }
    if (lane == 0) a.colors[(image * a.variants + v) * a.clusters + cluster] = chosen;
  }
}

// Grid: images; a warp per anchor. With more than one block per multiprocessor in mind ptxas
// spills registers.
template <class W>
__global__ void __launch_bounds__(kAnchorThreads, 1) anchors_kernel(const AnchorArgs a) {
  const int64_t image = blockIdx.x;
  for (int k = threadIdx.x / kWarp; k < int(a.clusters); k += kAnchorWarps) {
    int64_t* anchor = a.anchors + image * a.clusters + k;
    const int64_t chosen = a.labels == nullptr ? *anchor : largest_member<W>(a, image, k);
    if (a.labels != nullptr && threadIdx.x % kWarp == 0) *anchor = chosen;
    if (a.logits == nullptr) continue;
    // An anchor given from outside the image would be read from outside the tensor.
    const int64_t inside = chosen < 0 || chosen >= a.points ? 0 : chosen;
    const W* logits = static_cast<const W*>(a.logits) + (image * a.points + inside) * a.bins;
    const int ranks = a.variants > 1 ? kTopBins : 1;  // a single color is none of the others
    const int ranked = rank_bins(a, logits, ranks), best = __shfl_sync(kAllLanes, ranked, 0);
    const int first = a.temperature > 0 ? mean_bin(a, logits, best) : best;
    pick_colors(a, image, k, first, ranked);
  }
}

}  // namespace disco_fast
