// K-Means of one image by one thread block: every iteration, the convergence test and the refill of
// empty clusters in one launch, so that the host never waits and the launch can be captured in a
// CUDA graph. An image's result depends on nothing but the image.
//
// An iteration is two steps with a barrier after each: warps label 16 points at a time; then a warp
// takes 64 dimensions of one cluster, adds its members up in order and moves its center, so that
// nothing is summed up twice and there are no atomics. The new centers go beside the old ones.
//
// Points pass through shared memory in tiles; where all fit into one (some 700 of 64 floats), they
// are loaded once, else again from L2 in every iteration, or several blocks share them
// (kmeans_team.cuh).
#pragma once

#include "common.cuh"

namespace disco_fast {

constexpr int kMeansThreads = 512;
constexpr int kMeansWarps = kMeansThreads / kWarp;
constexpr int kDims = 4;  // dimensions read at a time, a pack; rows are padded to them

// How the lanes of a warp share its 16 points. Lane bit 0: one half of the centers; bits 1 and 2:
// every fourth pack of the dimensions; bits 3 and 4: every fourth point. So lanes that read one
// pack of a point are neighbors, and the packs that a warp reads at a time lie in different banks.
constexpr int kPoints = 4;  // of a lane
constexpr int kWarpPoints = 16;
constexpr int kDimLanes = 4;
// Centers of a lane at a time: with four, eight reads of shared memory feed 128 operations. Doubles
// take more registers.
template <class W>
constexpr int kCenters = sizeof(W) == 8 ? 2 : 4;
constexpr int kMostCenters = 8;  // of all lanes; there are rows for a multiple of them
// A job: a warp adds up so many dimensions of a cluster, a pair a lane. Rows are padded to pairs.
constexpr int kPair = 2;
constexpr int kJobDims = kPair * kWarp;
constexpr int kAhead = 8;       // members loaded before the first is added
constexpr int kLabelChunk = 8;  // warps' worth of labels looked at together

// Elements of a row of points and of centers: packs that are 4 modulo 8 and odd, against conflicts.
__host__ __device__ constexpr int point_pitch(int dims) {
  return (((dims + kDims - 1) / kDims + 11) / 8 * 8 - 4) * kDims;
}
__host__ __device__ constexpr int center_pitch(int dims) {
  return ((dims + kDims - 1) / kDims | 1) * kDims;
}

// How the work is laid out; a function of the shape and of the shared memory at hand.
struct KMeansPlan {
  int tile;           // points in shared memory
  int row_threads;    // threads that load a row: 2 to this power
  bool packed;        // rows of the points lie where packs can be read
  bool shared;        // centers are in shared memory, else in the workspace
  size_t bytes;       // of dynamic shared memory
  int64_t workspace;  // elements for an image
  size_t board;       // where the board of a team's block begins
};

// What the threads of a block work on together.
// kShared: centers are in shared memory. kFixed: the number of dimensions, where it is that of the
// network's tokens, else 0. kAlone: all points are known to be in one tile.
template <class Number, bool kShared_, int kFixed_, bool kAlone_>
struct KMeansImage {
  typedef Number W;
  static constexpr bool kShared = kShared_, kAlone = kAlone_;
  static constexpr int kFixed = kFixed_;

  const W* data;  // [P, D]
  W* points;      // [tile + 1, point_pitch]: the last row is zero
  // No array of two, of which nvcc 13.0 would lose the first address: see benchmarks/ptxas.py.
  W* centers;    // [K, center_pitch]: those that points are compared with
  W* next;       // likewise, the next
  int* lists;    // [warps, list_size]: how many bytes on members' rows begin
  W* moved;      // [jobs]: how far, squared
  int* counts;   // [jobs]: members
  int* labels;   // [tile]
  int* spare;    // [K]: the point that an empty cluster moves to
  int64_t* out;  // labels [P]; where there are several tiles, those of the current iteration
  int points_count, any_dims, clusters;
  bool kept;  // `labels` are those of the last iteration; `out` has the current ones if not all are

  // Whether all points are in one tile: then labels stay there until the end.
  __device__ __forceinline__ bool alone(const KMeansPlan& plan) const {
    return kAlone || plan.tile >= points_count;
  }
  __device__ __forceinline__ int dims() const { return kFixed ? kFixed : any_dims; }
  __device__ __forceinline__ int point_pitch() const { return disco_fast::point_pitch(dims()); }
  __device__ __forceinline__ int center_pitch() const { return disco_fast::center_pitch(dims()); }
  __device__ __forceinline__ int blocks() const { return int(ceil_div(dims(), kJobDims)); }
};

// Entries of a list: members of a tile, and zero rows until the next multiple of kAhead.
__host__ __device__ constexpr int list_size(int tile) {
  return (tile + kAhead - 1) / kAhead * kAhead;
}

__host__ __device__ constexpr int label_size(int tile) {
  return int(round_up(tile, kLabelChunk * kWarp));
}

// Points first..first + count - 1 to shared memory, padded with zeros.
template <class Image>
__device__ __forceinline__ void load_points(const Image& m, const KMeansPlan& plan, int64_t first,
                                            int count) {
  typedef typename Image::W W;
  const int lanes = 1 << plan.row_threads, t = threadIdx.x;
  const W* from = m.data + first * m.dims();
  for (int p = count + t; p < plan.tile; p += kMeansThreads) m.labels[p] = -1;
#pragma unroll 4
  for (int p = t >> plan.row_threads; p < count; p += kMeansThreads >> plan.row_threads) {
    for (int d = (t & (lanes - 1)) * kDims; d < m.dims(); d += lanes * kDims) {
      const W* row = from + int64_t(p) * m.dims();
      Pack<W, kDims> pack;
      if (plan.packed) {
        pack = load_pack<kDims>(row + d);
      } else {
#pragma unroll
        for (int i = 0; i < kDims; ++i) pack.value[i] = d + i < m.dims() ? row[d + i] : W(0);
      }
      store_pack(m.points + p * m.point_pitch() + d, pack);
    }
  }
}

// Squared distance of two packs.
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

// A lane's part of the squared distances of its points to the centers at `center`.
template <int kFixed, class W>
__device__ __forceinline__ void part_distances(const W* const (&point)[kPoints], const W* center,
                                               int pitch, int dims,
                                               W (&total)[kPoints][kCenters<W>]) {
#pragma unroll
  for (int i = 0; i < kPoints; ++i) {
#pragma unroll
    for (int j = 0; j < kCenters<W>; ++j) total[i][j] = 0;
  }
#pragma unroll(kFixed ? kFixed / (kDimLanes * kDims) : 1)
  for (int d = 0; d < dims; d += kDimLanes * kDims) {
    Pack<W, kDims> x[kPoints];
#pragma unroll
    for (int i = 0; i < kPoints; ++i) x[i] = load_pack<kDims>(point[i] + d);
#pragma unroll
    for (int j = 0; j < kCenters<W>; ++j) {
      const Pack<W, kDims> c = load_pack<kDims>(center + j * pitch + d);
#pragma unroll
      for (int i = 0; i < kPoints; ++i) total[i][j] = add_squares(x[i], c, total[i][j]);
    }
  }
}

// Adds the parts of four lanes up. Each lane gives half of its points away twice and is left with
// the sums of one point: number 2 * (bit 1 of the lane) + bit 2.
template <class W>
__device__ __forceinline__ void whole_distances(int lane, const W (&part)[kPoints][kCenters<W>],
                                                W (&whole)[kCenters<W>]) {
  static_assert(kPoints == 4 && kDimLanes == 4);
  const bool second = lane & 2, odd = lane & 4;
#pragma unroll
  for (int j = 0; j < kCenters<W>; ++j) {
    W two[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const W given = second ? part[i][j] : part[i + 2][j];
      two[i] = (second ? part[i + 2][j] : part[i][j]) + __shfl_xor_sync(kAllLanes, given, 2);
    }
    const W given = odd ? two[0] : two[1];
    whole[j] = (odd ? two[1] : two[0]) + __shfl_xor_sync(kAllLanes, given, 4);
  }
}

// Nearest center of each point of the tile, the first of several. Whether one of the thread's
// differs from that of the last iteration.
template <class Image>
__device__ __forceinline__ bool assign(const Image& m, const KMeansPlan& plan, int first,
                                       int count) {
  typedef typename Image::W W;
  const int lane = threadIdx.x % kWarp, half = lane & 1, group = lane >> 3;
  const int d = (lane >> 1 & 3) * kDims, begin = d < m.dims() ? d : 0;
  const int dims = Image::kFixed ? Image::kFixed : m.dims() - d;  // from there on
  bool changed = false;
  for (int base = threadIdx.x / kWarp * kWarpPoints; base < count;
       base += kMeansWarps * kWarpPoints) {
    const W* point[kPoints];
#pragma unroll
    for (int i = 0; i < kPoints; ++i) {
      point[i] = m.points + min(base + i * 4 + group, count - 1) * m.point_pitch() + begin;
    }
    W nearest = W(INFINITY);
    int label = 0;
    for (int k = half * kCenters<W>; k - half * kCenters<W> < m.clusters; k += 2 * kCenters<W>) {
      W part[kPoints][kCenters<W>], distance[kCenters<W>];
      part_distances<Image::kFixed>(point, m.centers + k * m.center_pitch() + begin,
                                    m.center_pitch(), dims, part);
      whole_distances(lane, part, distance);
#pragma unroll
      for (int j = 0; j < kCenters<W>; ++j) {
        if (k + j < m.clusters && distance[j] < nearest) {
          nearest = distance[j];
          label = k + j;
        }
      }
    }
    const W other = __shfl_xor_sync(kAllLanes, nearest, 1);
    const int other_label = __shfl_xor_sync(kAllLanes, label, 1);
    if (other < nearest || (other == nearest && other_label < label)) label = other_label;
    const int p = base + ((lane & 2) + (lane >> 2 & 1)) * 4 + group;
    if (half == 0 && p < count) {
      const bool kept = Image::kAlone || m.kept;
      changed = changed || (kept ? m.labels[p] : int(m.out[first + p])) != label;
      m.labels[p] = label;
      if (!m.alone(plan)) m.out[first + p] = label;
    }
  }
  return changed;
}

// Lists the members of cluster k in the tile, in order, by how many bytes on their rows begin; how
// many there are.
template <class Image>
__device__ __forceinline__ int list_members(const Image& m, const KMeansPlan& plan, int k,
                                            int count, int* list) {
  typedef typename Image::W W;
  const int lane = threadIdx.x % kWarp;
  const int row = m.point_pitch() * int(sizeof(W));
  const unsigned before = (1u << lane) - 1;
  int found = 0;
#pragma unroll 1
  for (int first = 0; first < count; first += kLabelChunk * kWarp) {
    bool member[kLabelChunk];
    unsigned mask[kLabelChunk];
#pragma unroll
    for (int i = 0; i < kLabelChunk; ++i) {
      const int p = first + i * kWarp + lane;
      member[i] = m.labels[p] == k;
    }
#pragma unroll
    for (int i = 0; i < kLabelChunk; ++i) mask[i] = __ballot_sync(kAllLanes, member[i]);
#pragma unroll
    for (int i = 0; i < kLabelChunk; ++i) {
      const int p = first + i * kWarp + lane;
      if (member[i]) list[found + __popc(mask[i] & before)] = p * row;
      found += __popc(mask[i]);
    }
  }
  const int end = found + lane;
  if (end < list_size(found)) list[end] = plan.tile * row;
  __syncwarp();  // the list is known
  return found;
}

// Adds the listed members' pair of dimensions at `row` of the zeroth point up, in order.
template <class W>
__device__ __forceinline__ void add_listed(const int* list, int listed, const W* row,
                                           Pack<W, kPair>& total) {
  const auto* column = reinterpret_cast<const unsigned char*>(row);
#pragma unroll 1
  for (int i = 0; i < listed; i += kAhead) {
    const Pack<int, kAhead> at = load_pack<kAhead>(list + i);
    Pack<W, kPair> value[kAhead];
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
      value[j] = load_pack<kPair>(reinterpret_cast<const W*>(column + at.value[j]));
    }
#pragma unroll
    for (int j = 0; j < kAhead; ++j) {
#pragma unroll
      for (int i = 0; i < kPair; ++i) total.value[i] += value[j].value[i];
    }
  }
  __syncwarp();  // the list has been read
}

// From the sum of a cluster's members to its next center, their mean or where it is; how far it
// moves, squared.
template <class W>
__device__ __forceinline__ W move_center(const W* center, int members, Pack<W, kPair>& total) {
  const Pack<W, kPair> old = load_pack<kPair>(center);
  W squares = 0;
#pragma unroll
  for (int i = 0; i < kPair; ++i) {
    total.value[i] = members > 0 ? total.value[i] / W(members) : old.value[i];
    const W step = total.value[i] - old.value[i];
    squares = fma(step, step, squares);
  }
  return squares;
}

// Adds the members of every cluster in the tile to the next centers, and after the last tile moves
// these to the means. Whether one of the thread's clusters is empty then.
template <class Image>
__device__ __forceinline__ bool add_members(const Image& m, const KMeansPlan& plan, bool first_tile,
                                            bool last_tile, int count) {
  typedef typename Image::W W;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  int* list = m.lists + warp * list_size(plan.tile);
  bool empty = false;
  for (int job = warp; job < m.clusters * m.blocks(); job += kMeansWarps) {
    const int k = job / m.blocks(), own = job % m.blocks() * kJobDims + lane * kPair;
    const bool mine = own < m.dims();
    const int d = mine ? own : 0;
    const int64_t center = int64_t(k) * m.center_pitch() + d;
    Pack<W, kPair> total = {};
    if (!first_tile && mine) total = load_pack<kPair>(m.next + center);
    const int earlier = first_tile ? 0 : m.counts[job];
    const int listed = list_members(m, plan, k, count, list), members = earlier + listed;
    add_listed(list, listed, m.points + d, total);
    W squares = 0;
    if (last_tile) {
      squares = move_center(m.centers + center, members, total);
      empty = empty || members == 0;
    }
    if (mine) store_pack(m.next + center, total);
    squares = warp_sum(mine ? squares : W(0));
    if (lane == 0) {
      m.counts[job] = members;
      m.moved[job] = squares;
    }
  }
  return empty;
}

// Squared distance of point p to its own center.
template <class Image>
__device__ __forceinline__ typename Image::W own_distance(const Image& m, const KMeansPlan& plan,
                                                          int64_t p) {
  typedef typename Image::W W;
  const int label = m.alone(plan) ? m.labels[p] : int(__ldcg(m.out + p));
  const W *point = m.data + p * m.dims(), *center = m.centers + label * m.center_pitch();
  W total = 0;
  for (int d = 0; d < m.dims(); ++d) {
    const W difference = point[d] - center[d];
    total = fma(difference, difference, total);
  }
  return total;
}

// Moves every empty cluster, in order, to the next of the points that lie farthest from their own
// center. Rare, so it may be slow.
template <class Image>
__device__ __forceinline__ void refill(const Image& m, const KMeansPlan& plan,
                                       Best<typename Image::W>* board) {
  typedef typename Image::W W;
  Best<W> last = {W(INFINITY), -1};
  for (int k = 0; k < m.clusters; ++k) {
    if (m.counts[k * m.blocks()] != 0) continue;
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
  const int lane = threadIdx.x % kWarp;
  for (int job = threadIdx.x / kWarp; job < m.clusters * m.blocks(); job += kMeansWarps) {
    const int k = job / m.blocks(), first = job % m.blocks() * kJobDims;
    if (m.counts[job] != 0) continue;
    W squares = 0;
    for (int d = first + lane; d < min(first + kJobDims, m.dims()); d += kWarp) {
      const W target = m.data[int64_t(m.spare[k]) * m.dims() + d];
      const W step = target - m.centers[k * m.center_pitch() + d];
      m.next[k * m.center_pitch() + d] = target;
      squares = fma(step, step, squares);
    }
    squares = warp_sum(squares);
    if (lane == 0) m.moved[job] = squares;
  }
  __syncthreads();
}

// Sum of the centers' shifts; every thread gets the same bits.
template <class Image>
__device__ __forceinline__ typename Image::W total_shift(const Image& m) {
  typedef typename Image::W W;
  W total = 0;
#pragma unroll 1  // the first turn is mostly the last
  for (int k = threadIdx.x % kWarp; k < m.clusters; k += kWarp) {
    W squares = 0;
    for (int b = 0; b < m.blocks(); ++b) squares += m.moved[k * m.blocks() + b];
    total += sqrt(squares);
  }
  return warp_sum(total);
}

// Iterates until nothing moves any more; returns how often. The final centers are the first.
template <class Image>
__device__ __forceinline__ int iterate(Image& m, const KMeansPlan& plan, int64_t max_iter,
                                       typename Image::W tol, Best<typename Image::W>* board) {
  typedef typename Image::W W;
  bool was_empty = false;  // a cluster, in the last iteration
  for (int64_t iteration = 1;; ++iteration) {
    bool changed = iteration == 1, empty = false;
    for (int first = 0; first < m.points_count; first += plan.tile) {
      const int left = m.points_count - first;
      const int count = Image::kAlone || left < plan.tile ? left : plan.tile;
      const bool last = count == left;
      if (iteration == 1 || !m.alone(plan)) {
        load_points(m, plan, first, count);
        __syncthreads();
      }
      changed = __syncthreads_or(assign(m, plan, first, count) || changed);
      // The same members have the same means: the centers would not move, now or later.
      if (last && !changed && !was_empty) return int(W(0) < tol ? iteration : max_iter);
      empty = add_members(m, plan, first == 0, last, count);
      if (!last) __syncthreads();
      if (Image::kAlone) break;
    }
    was_empty = __syncthreads_or(empty);
    if (was_empty) refill(m, plan, board);
    W* const next = m.next;
    m.next = m.centers;
    m.centers = next;
    const W shift = total_shift(m);
    if (shift * shift < tol || iteration == max_iter) return int(iteration);
  }
}

// Dynamic shared memory; see `plan_for`. What vectors are read from comes first.
template <class Image>
__device__ __forceinline__ Image lay_out(const KMeansArgs& a, const KMeansPlan& plan,
                                         int64_t image) {
  typedef typename Image::W W;
  Image m;
  m.points_count = int(a.points);
  m.any_dims = int(a.dims);
  m.clusters = int(a.clusters);
  m.kept = plan.tile >= m.points_count;
  m.data = static_cast<const W*>(a.data) + image * a.points * a.dims;
  m.out = a.labels + image * a.points;
  const int jobs = m.clusters * m.blocks();
  const int64_t centers = round_up(a.clusters, kMostCenters) * m.center_pitch();
  m.points = dynamic_shared<W>();
  W* next = m.points + (plan.tile + 1) * m.point_pitch();
  if constexpr (Image::kShared) {
    m.centers = next;
    next += 2 * centers;
  } else {
    m.centers = static_cast<W*>(a.workspace) + image * plan.workspace;
  }
  m.next = m.centers + centers;
  m.lists = reinterpret_cast<int*>(next);
  m.moved = reinterpret_cast<W*>(m.lists + kMeansWarps * list_size(plan.tile));
  m.counts = reinterpret_cast<int*>(m.moved + jobs);
  m.labels = m.counts + jobs;
  m.spare = m.labels + label_size(plan.tile);
  return m;
}

// Whether an index of the image's initial points is outside.
__device__ __forceinline__ bool is_outside(const KMeansArgs& a, const int64_t* init) {
  bool outside = false;
  for (int64_t k = threadIdx.x; k < a.clusters; k += kMeansThreads) {
    outside = outside || init[k] < 0 || init[k] >= a.points;
  }
  return __syncthreads_or(outside);
}

// What an image gets that has such an index.
template <class W>
__device__ __forceinline__ void refuse(const KMeansArgs& a, int64_t image) {
  W* centers = static_cast<W*>(a.centers) + image * a.clusters * a.dims;
  const int t = threadIdx.x;
  for (int64_t p = t; p < a.points; p += kMeansThreads) a.labels[image * a.points + p] = -1;
  for (int64_t i = t; i < a.clusters * a.dims; i += kMeansThreads) centers[i] = W(NAN);
  if (t == 0) a.iterations[image] = -1;
}

// Centers at the initial points, and what else is read before it is written.
template <class Image>
__device__ __forceinline__ void prepare(const Image& m, const KMeansPlan& plan,
                                        const int64_t* init) {
  typedef typename Image::W W;
  const int t = threadIdx.x, padded = int(round_up(m.dims(), kDims));
  for (int i = t; i < m.clusters * padded; i += kMeansThreads) {
    const int k = i / padded, d = i - k * padded;
    m.centers[k * m.center_pitch() + d] = d < m.dims() ? m.data[init[k] * m.dims() + d] : W(0);
    m.next[k * m.center_pitch() + d] = 0;
  }
  for (int d = t; d < padded; d += kMeansThreads) m.points[plan.tile * m.point_pitch() + d] = 0;
  for (int p = t; p < label_size(plan.tile); p += kMeansThreads) m.labels[p] = -1;
}

// The final centers and how many iterations there were.
template <class Image>
__device__ __forceinline__ void finish(const Image& m, const KMeansArgs& a, int64_t image,
                                       int iterations) {
  typedef typename Image::W W;
  W* centers = static_cast<W*>(a.centers) + image * a.clusters * a.dims;
  for (int i = threadIdx.x; i < m.clusters * m.dims(); i += kMeansThreads) {
    const int k = i / m.dims();
    centers[i] = m.centers[k * m.center_pitch() + i - k * m.dims()];
  }
  if (threadIdx.x == 0) a.iterations[image] = iterations;
}

// Grid: images.
template <class Image>
__global__ void __launch_bounds__(kMeansThreads, 1)
    kmeans_kernel(const KMeansArgs a, const KMeansPlan plan) {
  typedef typename Image::W W;
  __shared__ Best<W> board[kMeansWarps];
  const int64_t image = blockIdx.x;
  Image m = lay_out<Image>(a, plan, image);
  const int64_t* init = a.init + image * a.clusters;
  const int t = threadIdx.x;
  if (is_outside(a, init)) return refuse<W>(a, image);
  prepare(m, plan, init);
  if (!m.alone(plan)) {
    for (int64_t p = t; p < m.points_count; p += kMeansThreads) m.out[p] = -1;
  }
  // The barrier after the first points makes all of it known.
  const int iterations = iterate(m, plan, a.max_iter, W(a.tol), board);
  finish(m, a, image, iterations);
  if (m.alone(plan)) {
    for (int p = t; p < m.points_count; p += kMeansThreads) m.out[p] = m.labels[p];
  }
}

}  // namespace disco_fast
