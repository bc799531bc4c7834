#include <algorithm>

#include "kmeans_team.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

constexpr int kFewestPoints = 32;  // of a tile; below, most threads would have nothing to do
constexpr int64_t kBoard = 1024;   // static shared memory, rounded up

// Where things go in `limit` bytes of shared memory, with at most so many points; tile is 0 where
// not one point fits.
template <class W>
KMeansPlan plan_for(const KMeansArgs& a, int64_t limit, int64_t most_points) {
  const int64_t packs = ceil_div(a.dims, kDims), jobs = a.clusters * ceil_div(a.dims, kJobDims);
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
  plan.tile = int(std::clamp((limit - fixed) / point, int64_t(0), most_points));
  plan.bytes = size_t(fixed - kBoard + plan.tile * point);
  return plan;
}

// The plan for a team of blocks; `blocks` is 0 where a block works alone.
cudaError_t plan_team(const KMeansArgs& args, int device, int64_t limit, KMeansPlan* plan,
                      KMeansTeam* team) {
  if (args.element != Element::kFloat32 || args.dims != kTokenDim || plan->tile >= args.points) {
    return cudaSuccess;
  }
  KMeansPlan tiled = plan_for<float>(args, limit, kTeamTile);
  tiled.board = size_t(round_up(int64_t(tiled.bytes), 16));
  tiled.bytes = tiled.board + kMeansWarps * sizeof(Best<float>);
  if (!tiled.shared || tiled.tile < kTeamTile) return cudaSuccess;
  const void* kernel = reinterpret_cast<const void*>(kmeans_team_kernel);
  int processors = 0, each = 0;
  cudaError_t error = allow_shared_memory(kernel);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kmeans_team_kernel, kMeansThreads,
                                                          tiled.bytes);
  }
  const int64_t capacity = int64_t(processors) * each;
  if (error != cudaSuccess || capacity < 2) return error;
  team->tiles = int(ceil_div(args.points, kTeamTile));
  team->blocks = int(std::min(int64_t(team->tiles), capacity));
  team->groups = int(std::min(args.images, capacity / team->blocks));
  *plan = tiled;
  return cudaSuccess;
}

cudaError_t plan_here(const KMeansArgs& args, KMeansPlan* plan, KMeansTeam* team) {
  int device = 0, limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  if (error != cudaSuccess) return error;
  *plan = args.element == Element::kFloat64 ? plan_for<double>(args, limit, args.points)
                                            : plan_for<float>(args, limit, args.points);
  const bool fits = plan->tile > 0 && args.points < (int64_t(1) << 31) &&
                    args.clusters * args.dims < (int64_t(1) << 31) && fits_grid(args.images, 1);
  return fits ? plan_team(args, device, limit, plan, team) : cudaErrorInvalidValue;
}

// Bytes of the counters of a team, which its sums follow.
int64_t counter_bytes(const KMeansArgs& args) {
  return round_up(args.images * int64_t(sizeof(unsigned)), 16);
}

}  // namespace

int64_t kmeans_workspace(const KMeansArgs& args, cudaError_t* error) {
  KMeansPlan plan = {};
  KMeansTeam team = {};
  *error = plan_here(args, &plan, &team);
  if (team.blocks > 0) {
    return counter_bytes(args) + args.images * team_bytes(team.tiles, args.clusters);
  }
  return args.images * plan.workspace * int64_t(args.element == Element::kFloat64 ? 8 : 4);
}

cudaError_t launch_kmeans(const KMeansArgs& args, cudaStream_t stream) {
  KMeansPlan plan = {};
  KMeansTeam team = {};
  const cudaError_t error = plan_here(args, &plan, &team);
  if (error != cudaSuccess) return error;
  if (team.blocks > 0) {
    team.arrived = static_cast<unsigned*>(args.workspace);
    team.workspace = static_cast<unsigned char*>(args.workspace) + counter_bytes(args);
    const cudaError_t refused =
        cudaMemsetAsync(team.arrived, 0, size_t(counter_bytes(args)), stream);
    if (refused != cudaSuccess) return refused;
    return launch_cooperative(kmeans_team_kernel, grid_of(team.groups * int64_t(team.blocks)),
                              kMeansThreads, plan.bytes, stream, args, plan, team);
  }
  return with_wide_element(args.element, [&](auto w) {
    typedef decltype(w) W;
    auto* kernel = plan.shared ? kmeans_kernel<KMeansImage<W, true, 0, false>>
                               : kmeans_kernel<KMeansImage<W, false, 0, false>>;
    if (sizeof(W) == 4 && plan.shared && args.dims == kTokenDim && plan.tile >= args.points) {
      kernel = kmeans_kernel<KMeansImage<float, true, kTokenDim, true>>;
    }
    return launch(kernel, grid_of(args.images), kMeansThreads, plan.bytes, stream, args, plan);
  });
}

}  // namespace disco_fast
