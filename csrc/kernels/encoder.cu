#include <algorithm>

#include "encoder.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

// Blocks that can be resident at once.
template <int T>
cudaError_t capacity_of(int64_t* blocks) {
  static_assert(EncoderShared<T>::kBytes <= 48 * 1024,
                "more has to be asked for before this query");
  int device = 0, processors = 0, each = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  if (error == cudaSuccess) {
    error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, encoder_kernel<T>, kEncoderThreads,
                                                          EncoderShared<T>::kBytes);
  }
  *blocks = int64_t(processors) * each;
  return error;
}

// Bytes of the planes; the counters follow them.
int64_t plane_bytes(const EncoderArgs& args) {
  return args.images * args.count * kTokenDim * kEncoderPlanes * int64_t(sizeof(float));
}

// With tiles of T tokens if all of them can be resident, else with larger ones: every block reads
// all weights, so that many small tiles are better only while there is room.
template <int T>
cudaError_t launch_tiles(const EncoderArgs& args, cudaStream_t stream) {
  int64_t capacity = 0;
  const cudaError_t error = capacity_of<T>(&capacity);
  if (error != cudaSuccess) return error;
  if (capacity == 0) return cudaErrorInvalidValue;
  const int64_t tiles = ceil_div(args.count, T);
  if constexpr (2 * T <= kMostTileTokens) {
    if (args.images * tiles > capacity) return launch_tiles<2 * T>(args, stream);
  }
  EncoderPlan plan = {};
  plan.tiles = int(tiles);
  plan.blocks = int(std::min(tiles, capacity));
  plan.groups = int(std::min(args.images, capacity / plan.blocks));
  plan.arrived = reinterpret_cast<unsigned*>(reinterpret_cast<unsigned char*>(args.workspace) +
                                             plane_bytes(args));
  const cudaError_t refused =
      cudaMemsetAsync(plan.arrived, 0, size_t(args.images) * sizeof(unsigned), stream);
  if (refused != cudaSuccess) return refused;
  return launch_cooperative(encoder_kernel<T>, grid_of(plan.groups * int64_t(plan.blocks)),
                            kEncoderThreads, EncoderShared<T>::kBytes, stream, args, plan);
}

}  // namespace

int64_t encoder_workspace(const EncoderArgs& args) {
  return plane_bytes(args) + args.images * int64_t(sizeof(unsigned));
}

cudaError_t launch_encoder(const EncoderArgs& args, cudaStream_t stream) {
  constexpr int64_t kMost = int64_t(1) << 24;  // tokens, layers: int is enough for what follows
  if (args.count > kMost || args.layers > kMost || !fits_grid(args.images, 1)) {
    return cudaErrorInvalidValue;
  }
  return launch_tiles<kLeastTileTokens>(args, stream);
}

}  // namespace disco_fast
