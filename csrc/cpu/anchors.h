// Anchors and their colors: the largest superpixel of each cluster, the color that its bins'
// scores mean, and up to two colors unlike it among its most probable bins.
#pragma once

#include <cmath>

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// Argmax over superpixels of (in the cluster) + 0.01 * size, the first maximum.
template <class W>
inline int64_t largest_member(const AnchorArgs& a, int64_t image, int64_t cluster) {
  const int64_t* labels = a.labels + image * a.points;
  const W* sizes = static_cast<const W*>(a.sizes) + image * a.points;
  int64_t anchor = 0;
  W best = -1;
  for (int64_t p = 0; p < a.points; ++p) {
    // Two roundings, as in the specification: a fused multiply-add could break a tie.
    const volatile W bonus = sizes[p] * W(0.01);
    const W score = W(labels[p] == cluster) + bonus;
    if (score > best) {
      best = score;
      anchor = p;
    }
  }
  return anchor;
}

// Of a superpixel's bin.
template <class W>
inline W score(const AnchorArgs& a, const W* logits, int64_t bin) {
  return a.offset == nullptr ? logits[bin] : logits[bin] + static_cast<const W*>(a.offset)[bin];
}

// The most probable bins, most probable first; of equal ones the lowest first. Returns how many.
template <class W>
inline int rank_bins(const AnchorArgs& a, const W* logits, int64_t* ranked) {
  int count = 0;
  for (int64_t b = 0; b < a.bins; ++b) {
    const W own = score(a, logits, b);
    int place = count;
    while (place > 0 && own > score(a, logits, ranked[place - 1])) --place;
    if (place == kTopBins) continue;
    count = count < kTopBins ? count + 1 : kTopBins;
    for (int i = count - 1; i > place; --i) ranked[i] = ranked[i - 1];
    ranked[place] = b;
  }
  return count;
}

// The bin nearest to the annealed mean of the bins' centers; `best` is the most probable one. In
// fp64, whatever W is: the mean must be the same everywhere, or nearly so.
template <class W>
inline int64_t mean_bin(const AnchorArgs& a, const W* logits, int64_t best) {
  const double most = score(a, logits, best);
  double total = 0, x = 0, y = 0;
  for (int64_t b = 0; b < a.bins; ++b) {
    const double share = std::exp((double(score(a, logits, b)) - most) / a.temperature);
    total += share;
    x += share * a.bin_centers[2 * b];
    y += share * a.bin_centers[2 * b + 1];
  }
  x = std::rint(x / total * kColorParts) / kColorParts;
  y = std::rint(y / total * kColorParts) / kColorParts;
  int64_t nearest = 0;
  double least = INFINITY;
  for (int64_t b = 0; b < a.bins; ++b) {
    const double dx = a.bin_centers[2 * b] - x, dy = a.bin_centers[2 * b + 1] - y;
    const double distance = dx * dx + dy * dy;
    if (distance < least) {
      least = distance;
      nearest = b;
    }
  }
  return nearest;
}

// Picks of an anchor: `first`, the ranked bin farthest from it in ab, the one with the largest
// summed distance to both. Bin centers are whole numbers, so that in fp64 equal distances are
// equal, and the first maximum is the same everywhere.
inline void pick_colors(const AnchorArgs& a, int64_t first, const int64_t* ranked, int count,
                        int64_t* colors) {
  double distance[kTopBins] = {};
  int64_t chosen = first;
  colors[0] = chosen;
  for (int64_t v = 1; v < a.variants; ++v) {
    const float* last = a.bin_centers + 2 * chosen;
    int pick = 0;
    for (int i = 0; i < count; ++i) {
      const float* center = a.bin_centers + 2 * ranked[i];
      const double x = double(center[0]) - last[0], y = double(center[1]) - last[1];
      distance[i] += __builtin_sqrt(x * x + y * y);
      if (distance[i] > distance[pick]) pick = i;
    }
    chosen = ranked[pick];
    colors[v * a.clusters] = chosen;
  }
}

template <class W>
inline void anchor_image(const AnchorArgs& a, int64_t image) {
  for (int64_t k = 0; k < a.clusters; ++k) {
    int64_t& anchor = a.anchors[image * a.clusters + k];
    if (a.labels != nullptr) anchor = largest_member<W>(a, image, k);
    if (a.logits == nullptr) continue;
    int64_t ranked[kTopBins];
    const W* logits = static_cast<const W*>(a.logits) + (image * a.points + anchor) * a.bins;
    const int count = rank_bins(a, logits, ranked);
    const int64_t first = a.temperature > 0 ? mean_bin(a, logits, ranked[0]) : ranked[0];
    pick_colors(a, first, ranked, count, a.colors + image * a.variants * a.clusters + k);
  }
}

inline void anchor_images(const AnchorArgs& a, int64_t begin, int64_t end) {
  with_wide_element(a.element, [&](auto w) {
    for (int64_t image = begin; image < end; ++image) anchor_image<decltype(w)>(a, image);
  });
}

}  // namespace disco_fast::DISCO_FAST_ISA
