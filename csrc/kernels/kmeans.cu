#include <algorithm>

#include "kmeans.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

constexpr int kFewestPoints = 32;  // of a tile; below, most threads would have nothing to do
constexpr int64_t kBoard = 1024;   // static shared memory, rounded up

// Where things go in `limit` bytes of shared memory; tile is 0 where not one point fits.
template <class W>
KMeansPlan plan_for(const KMeansArgs& a, int64_t limit) {
  const int64_t packs = ceil_div(a.dims, kDims), jobs = a.clusters * ceil_div(a.dims, kWarp);
  KMeansPlan plan = {};
  plan.packed =
      a.dims % kDims == 0 && reinterpret_cast<uintptr_t>(a.data) % alignof(Pack<W, kDims>) == 0;
  while (plan.row_threads < 5 && 1 << plan.row_threads < packs) ++plan.row_threads;
  const int64_t row = point_pitch(int(a.dims)) * int64_t(sizeof(W));
  const int64_t centers = 2 * round_up(a.clusters, kMostCenters) * center_pitch(int(a.dims));
  // A row of zeros, what jobs and clusters leave, the ends of lists and labels.
  const int64_t small = kBoard + row + jobs * int64_t(sizeof(W) + sizeof(int)) +
                        a.clusters * int64_t(sizeof(int)) +
                        (kMeansWarps * kAhead + kLabelChunk * kWarp) * int64_t(sizeof(int));
  const int64_t point = row + int64_t(sizeof(int)) + kMeansWarps * int64_t(sizeof(int));
  const int64_t wanted = std::min(a.points, int64_t(kFewestPoints));
  plan.shared = small + centers * int64_t(sizeof(W)) + wanted * point <= limit;
  const int64_t fixed = small + (plan.shared ? centers * int64_t(sizeof(W)) : 0);
  plan.workspace = plan.shared ? 0 : centers;
  plan.tile = int(std::clamp((limit - fixed) / point, int64_t(0), a.points));
  plan.bytes = size_t(fixed - kBoard + plan.tile * point);
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
    auto* kernel = plan.shared ? kmeans_kernel<W, true, 0> : kmeans_kernel<W, false, 0>;
    if (sizeof(W) == 4 && plan.shared && args.dims == kTokenDim) {
      kernel = kmeans_kernel<float, true, kTokenDim>;
    }
    return launch(kernel, grid_of(args.images), kMeansThreads, plan.bytes, stream, args, plan);
  });
}

}  // namespace disco_fast
