#include <algorithm>

#include "kmeans.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

constexpr int64_t kMostSums = 32 * 1024;  // bytes of shared memory worth giving to slices
constexpr int kMostDimLanes = 2;          // each doubling costs 16 shuffles
constexpr int kFewestPoints = 32;         // of a tile; below, most threads would have nothing to do

// Where things go in `limit` bytes of shared memory; tile is 0 where not one point fits.
template <class W>
KMeansPlan plan_for(const KMeansArgs& a, int64_t limit) {
  const int64_t packs = ceil_div(a.dims, kDims);
  KMeansPlan plan = {};
  plan.packed =
      a.dims % kDims == 0 && reinterpret_cast<uintptr_t>(a.data) % alignof(Pack<W, kDims>) == 0;
  plan.pitch = int((packs % 2 == 1 ? packs : packs + 1) * kDims);
  const int64_t row = plan.pitch * int64_t(sizeof(W)), rows = a.clusters * row;
  const int64_t board = 1024;  // static shared memory, rounded up
  const int64_t small = a.clusters * int64_t(sizeof(W) + 2 * sizeof(int)) + board;
  const int64_t point = row + int64_t(sizeof(int));
  // As many slices as keep every warp busy once.
  const int64_t busy = kMeansWarps / ceil_div(a.dims, kWarp);
  plan.slices =
      int(std::max(std::min({busy, kMostSums / rows, ceil_div(a.points, kWarp)}), int64_t(1)));
  const int64_t center_rows = round_up(a.clusters, kMostCenters) + plan.slices * a.clusters;
  const int64_t all = round_up(a.points, kPoints);
  const int64_t wanted = std::min(all, int64_t(kFewestPoints));
  plan.shared = small + center_rows * row + wanted * point <= limit;
  const int64_t fixed = small + (plan.shared ? center_rows * row : 0);
  plan.workspace = plan.shared ? 0 : center_rows * plan.pitch;
  const int64_t held = std::clamp((limit - fixed) / point / kPoints * kPoints, int64_t(0), all);
  plan.tile = int(std::min(held, a.points));
  plan.bytes = size_t(fixed - board + held * point);
  // Threads that would have no points of their own share those of others.
  const int64_t quads = ceil_div(plan.tile, kPoints);
  const auto double_while = [&](int* lanes, int64_t useful) {
    const auto all = [&] { return plan.dim_lanes * plan.center_lanes; };
    while (2 * *lanes <= useful && 2 * all() * quads <= kMeansThreads && 2 * all() <= kWarp) {
      *lanes *= 2;
    }
  };
  plan.dim_lanes = plan.center_lanes = 1;
  double_while(&plan.center_lanes,
               ceil_div(a.clusters, plan.shared ? kCenters<W, true> : kCenters<W, false>));
  double_while(&plan.dim_lanes, std::min(packs, int64_t(kMostDimLanes)));
  return plan;
}

cudaError_t plan_here(const KMeansArgs& args, KMeansPlan* plan) {
  int device = 0, limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return error;
  *plan = args.element == Element::kFloat64 ? plan_for<double>(args, limit)
                                            : plan_for<float>(args, limit);
  const bool fits = plan->tile > 0 && args.points < (int64_t(1) << 31) &&
                    args.clusters * args.dims < (int64_t(1) << 31) && fits_grid(args.images, 1);
  return fits ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace

int64_t kmeans_workspace(const KMeansArgs& args, cudaError_t* error) {
  KMeansPlan plan = {};
  *error = plan_here(args, &plan);
  return args.images * plan.workspace * int64_t(args.element == Element::kFloat64 ? 8 : 4);
}

cudaError_t launch_kmeans(const KMeansArgs& args, cudaStream_t stream) {
  KMeansPlan plan = {};
  const cudaError_t error = plan_here(args, &plan);
  if (error != cudaSuccess) return error;
  return with_wide_element(args.element, [&](auto w) {
    typedef decltype(w) W;
    return launch(plan.shared ? kmeans_kernel<W, true> : kmeans_kernel<W, false>,
                  grid_of(args.images), kMeansThreads, plan.bytes, stream, args, plan);
  });
}

}  // namespace disco_fast
