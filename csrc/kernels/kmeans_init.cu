#include <algorithm>

#include "kmeans_init.cuh"
#include "launch.cuh"

namespace disco_fast {

cudaError_t launch_kmeans_init(const KMeansInitArgs& args, cudaStream_t stream) {
  if (!fits_grid(args.images, 1)) return cudaErrorInvalidValue;
  const int threads = int(std::min(round_up(args.points, kWarp), int64_t(kInitThreads)));
  return with_wide_element(args.element, [&](auto w) {
    typedef decltype(w) W;
    constexpr int kPack = sizeof(W) == 4 ? 4 : 1;  // two doubles at once would need the stack
    const bool packs = reinterpret_cast<uintptr_t>(args.data) % 16 == 0 && args.dims % kPack == 0;
    auto* kernel = packs ? kmeans_init_kernel<W, kPack> : kmeans_init_kernel<W, 1>;
    return launch(kernel, grid_of(args.images), threads, 0, stream, args);
  });
}

}  // namespace disco_fast
