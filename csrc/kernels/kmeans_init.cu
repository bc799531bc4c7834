#include <algorithm>

#include "kmeans_init.cuh"
#include "launch.cuh"

namespace disco_fast {

cudaError_t launch_kmeans_init(const KMeansInitArgs& args, cudaStream_t stream) {
  if (!fits_grid(args.images, 1)) return cudaErrorInvalidValue;
  const int threads = int(std::min(round_up(args.points, kWarp), int64_t(kInitThreads)));
  return with_wide_element(args.element, [&](auto w) {
    return launch(kmeans_init_kernel<decltype(w)>, grid_of(args.images), threads, 0, stream, args);
  });
}

}  // namespace disco_fast
