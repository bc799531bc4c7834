// K-Means of one image at a time: one thread, so that an image's result depends on nothing but the
// image.
//
// Points are kept transposed in blocks of L, so that a vector holds the same coordinate of L
// points: distances to all centers then need no horizontal sums.
#pragma once

#include <cmath>

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

// The points of an image in blocks of kLanes: block b, coordinate d, lane i. The last block is
// padded with zeros.
template <class W>
class Blocks {
 public:
  static constexpr int L = kLanes<W>;

  Blocks(const W* data, int64_t points, int64_t dims)
      : count((points + L - 1) / L), dims_(dims), data_(count * dims * L) {
    for (int64_t b = 0; b < count; ++b) {
      for (int64_t d = 0; d < dims; ++d) {
        W* to = data_ + (b * dims + d) * L;
        for (int i = 0; i < L; ++i) {
          const int64_t p = b * L + i;
          to[i] = p < points ? data[p * dims + d] : W(0);
        }
      }
    }
  }
  const W* operator[](int64_t block) const { return data_ + block * dims_ * L; }

  const int64_t count;

 private:
  int64_t dims_;
  Scratch<W> data_;
};

// Squared distances of B neighboring blocks to K centers [K, dims]: distance[k][b]. A center's
// coordinate is loaded once for all blocks; K * B sums must stay in registers.
template <class W, int K, int B>
inline void distances(const W* block, const W* centers, int64_t dims,
                      Vector<W, kLanes<W>> (*distance)[B]) {
  constexpr int L = kLanes<W>;
  Vector<W, L> total[K][B] = {};
  for (int64_t d = 0; d < dims; ++d) {
    Vector<W, L> value[B];
    for (int b = 0; b < B; ++b) value[b] = load<L>(block + (b * dims + d) * L);
#pragma GCC unroll 8
    for (int k = 0; k < K; ++k) {
      const Vector<W, L> center = broadcast<W, L>(centers[k * dims + d]);
      for (int b = 0; b < B; ++b) {
        const Vector<W, L> difference = value[b] - center;
        total[k][b] += difference * difference;
      }
    }
  }
  for (int k = 0; k < K; ++k) {
    for (int b = 0; b < B; ++b) distance[k][b] = total[k][b];
  }
}

// Nearest center of the points of B neighboring blocks, the first of several; its distance too.
template <class W, int B>
inline void assign_blocks(const W* block, const W* centers, int64_t clusters, int64_t dims,
                          Index<W>* labels, W* nearest) {
  constexpr int L = kLanes<W>;
  typedef Vector<Index<W>, L> Labels;
  Vector<W, L> best[B], distance[8][B];
  Labels label[B] = {};
  for (int b = 0; b < B; ++b) best[b] = broadcast<W, L>(W(INFINITY));
  const auto take = [&](int64_t first, int count) {
    for (int k = 0; k < count; ++k) {
      for (int b = 0; b < B; ++b) {
        const auto closer = distance[k][b] < best[b];
        best[b] = closer ? distance[k][b] : best[b];
        label[b] = closer ? Labels{} + Index<W>(first + k) : label[b];
      }
    }
  };
  int64_t k = 0;
  for (; k + 8 <= clusters; k += 8) {
    distances<W, 8, B>(block, centers + k * dims, dims, distance);
    take(k, 8);
  }
  for (; k + 4 <= clusters; k += 4) {
    distances<W, 4, B>(block, centers + k * dims, dims, distance);
    take(k, 4);
  }
  for (; k < clusters; ++k) {
    distances<W, 1, B>(block, centers + k * dims, dims, distance);
    take(k, 1);
  }
  for (int b = 0; b < B; ++b) {
    store<L>(labels + b * L, label[b]);
    store<L>(nearest + b * L, best[b]);
  }
}

template <class W>
inline void assign(const Blocks<W>& blocks, const W* centers, int64_t clusters, int64_t dims,
                   Index<W>* labels, W* nearest) {
  constexpr int L = kLanes<W>, B = kRegisters == 32 ? 2 : 1;
  int64_t b = 0;
  for (; b + B <= blocks.count; b += B) {
    assign_blocks<W, B>(blocks[b], centers, clusters, dims, labels + b * L, nearest + b * L);
  }
  for (; b < blocks.count; ++b) {
    assign_blocks<W, 1>(blocks[b], centers, clusters, dims, labels + b * L, nearest + b * L);
  }
}

// The point that lies farthest from its own center, lowest index first; -1 marks it as used up.
template <class W>
inline int64_t take_farthest(W* nearest, int64_t points) {
  int64_t farthest = 0;
  for (int64_t p = 1; p < points; ++p) {
    if (nearest[p] > nearest[farthest]) farthest = p;
  }
  nearest[farthest] = -1;
  return farthest;
}

// Members of the clusters, added up. Points that stay where they are cost nothing.
template <class W>
class Clusters {
 public:
  // double: a cluster may hold all of 16,384 points, and points come and go for 20 iterations
  Clusters(int64_t clusters, int64_t dims)
      : dims_(dims), sums_(clusters * dims), sizes_(clusters), changed_(clusters) {
    for (int64_t i = 0; i < clusters * dims; ++i) sums_[i] = 0;
    for (int64_t k = 0; k < clusters; ++k) sizes_[k] = changed_[k] = 0;
  }

  void add(int64_t cluster, const W* point, double sign) {
    double* to = sums_ + cluster * dims_;
    for (int64_t d = 0; d < dims_; ++d) to[d] += sign * double(point[d]);
    sizes_[cluster] += sign > 0 ? 1 : -1;
    changed_[cluster] = 1;
  }

  bool empty(int64_t cluster) const { return sizes_[cluster] == 0; }

  // Whether the mean may differ from the one taken last.
  bool take_change(int64_t cluster) {
    const bool changed = changed_[cluster];
    changed_[cluster] = 0;
    return changed;
  }

  void mean(int64_t cluster, W* to) const {
    const double* from = sums_ + cluster * dims_;
    for (int64_t d = 0; d < dims_; ++d) to[d] = W(from[d] / double(sizes_[cluster]));
  }

 private:
  const int64_t dims_;
  const Scratch<double> sums_;
  const Scratch<int64_t> sizes_, changed_;
};

// Replaces a center; returns how far it moved.
template <class W>
inline double move_center(W* center, const W* target, int64_t dims) {
  constexpr int L = kLanes<W>;
  Vector<W, L> squares = {};
  int64_t d = 0;
  for (; d + L <= dims; d += L) {
    const Vector<W, L> step = load<L>(target + d) - load<L>(center + d);
    squares += step * step;
    store<L>(center + d, load<L>(target + d));
  }
  double total = double(sum<W, L>(squares));
  for (; d < dims; ++d) {
    const double step = double(target[d]) - double(center[d]);
    total += step * step;
    center[d] = target[d];
  }
  return __builtin_sqrt(total);
}

template <class W>
inline void kmeans_image(const KMeansArgs& a, int64_t image) {
  const int64_t points = a.points, dims = a.dims, clusters = a.clusters;
  const W* data = static_cast<const W*>(a.data) + image * points * dims;
  W* centers = static_cast<W*>(a.centers) + image * clusters * dims;
  int64_t* labels = a.labels + image * points;
  const Blocks<W> blocks(data, points, dims);
  const Scratch<Index<W>> nearest(blocks.count * Blocks<W>::L);
  const Scratch<W> distance(blocks.count * Blocks<W>::L), mean(dims);
  Clusters<W> members(clusters, dims);

  for (int64_t k = 0; k < clusters; ++k) {
    const W* start = data + a.init[image * clusters + k] * dims;
    for (int64_t d = 0; d < dims; ++d) centers[k * dims + d] = start[d];
  }
  for (int64_t p = 0; p < points; ++p) labels[p] = -1;
  int64_t iteration = 0;
  double shift;
  do {
    ++iteration;
    assign<W>(blocks, centers, clusters, dims, nearest, distance);
    for (int64_t p = 0; p < points; ++p) {
      if (nearest[p] == labels[p]) continue;
      if (labels[p] >= 0) members.add(labels[p], data + p * dims, -1);
      members.add(nearest[p], data + p * dims, 1);
      labels[p] = nearest[p];
    }
    shift = 0;
    for (int64_t k = 0; k < clusters; ++k) {
      W* center = centers + k * dims;
      if (members.empty(k)) {
        const int64_t spare = take_farthest<W>(distance, points);
        shift += move_center<W>(center, data + spare * dims, dims);
      } else if (members.take_change(k)) {
        members.mean(k, mean);
        shift += move_center<W>(center, mean, dims);
      }
    }
  } while (!(shift * shift < a.tol) && iteration < a.max_iter);
  a.iterations[image] = iteration;
}

inline void kmeans_images(const KMeansArgs& a, int64_t begin, int64_t end) {
  const FlushDenormals flush;
  with_wide_element(a.element, [&](auto w) {
    for (int64_t image = begin; image < end; ++image) kmeans_image<decltype(w)>(a, image);
  });
}

// ---- First centers. The generator is a hash of (seed, draw, point); see reference/, which it
// must match.

inline uint32_t mix(uint32_t x) {
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

class RandomWords {
 public:
  RandomWords(int64_t seed, int64_t draw)
      : key_(mix(mix(uint32_t(seed) ^ mix(uint32_t(uint64_t(seed) >> 32) + 0x9e3779b9u)) ^
                 (uint32_t(draw) + 0x85ebca6bu))) {}
  uint32_t operator[](int64_t index) const { return mix(key_ ^ uint32_t(index)); }

 private:
  uint32_t key_;
};

// The `clusters` smallest words, in order; O(P K), for K is small.
inline void init_random(const KMeansInitArgs& a, int64_t* init) {
  const RandomWords words(a.seed, 0);
  int64_t previous = -1;  // the words are different for different indices: mix is a bijection
  for (int64_t k = 0; k < a.clusters; ++k) {
    int64_t smallest = -1;
    for (int64_t p = 0; p < a.points; ++p) {
      if (previous >= 0 && words[p] <= words[previous]) continue;
      if (smallest < 0 || words[p] < words[smallest]) smallest = p;
    }
    init[k] = previous = smallest;
  }
}

template <class W>
inline void init_plus_plus(const KMeansInitArgs& a, int64_t image, int64_t* init) {
  const W* data = static_cast<const W*>(a.data) + image * a.points * a.dims;
  const Blocks<W> blocks(data, a.points, a.dims);
  const Scratch<Index<W>> labels(blocks.count * Blocks<W>::L);
  const Scratch<W> distance(blocks.count * Blocks<W>::L);
  const Scratch<double> nearest(a.points);
  for (int64_t p = 0; p < a.points; ++p) nearest[p] = INFINITY;

  KMeansInitArgs first = a;
  first.clusters = 1;
  init_random(first, init);
  for (int64_t draw = 1; draw < a.clusters; ++draw) {
    const int64_t latest = init[draw - 1];
    assign<W>(blocks, data + latest * a.dims, 1, a.dims, labels, distance);
    const RandomWords words(a.seed, draw);
    double best = INFINITY;
    init[draw] = 0;
    for (int64_t p = 0; p < a.points; ++p) {
      if (double(distance[p]) < nearest[p]) nearest[p] = double(distance[p]);
      if (p == latest) nearest[p] = -1;  // taken
      if (nearest[p] < 0) continue;
      const double uniform = (double(words[p]) + 1) * 0x1p-32;
      const double race = -std::log(uniform) / (nearest[p] > 1e-30 ? nearest[p] : 1e-30);
      if (race < best) {
        best = race;
        init[draw] = p;
      }
    }
  }
}

inline void kmeans_init_images(const KMeansInitArgs& a, int64_t begin, int64_t end) {
  with_wide_element(a.element, [&](auto w) {
    for (int64_t image = begin; image < end; ++image) {
      int64_t* init = a.init + image * a.clusters;
      a.plus_plus ? init_plus_plus<decltype(w)>(a, image, init) : init_random(a, init);
    }
  });
}

}  // namespace disco_fast::DISCO_FAST_ISA
