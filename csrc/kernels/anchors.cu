#include "anchors.cuh"
#include "launch.cuh"

namespace disco_fast {

cudaError_t launch_anchors(const AnchorArgs& args, cudaStream_t stream) {
  if (!fits_grid(args.images, 1)) return cudaErrorInvalidValue;
  return with_wide_element(args.element, [&](auto w) {
    return launch(anchors_kernel<decltype(w)>, grid_of(args.images), kAnchorThreads, 0, stream,
                  args);
  });
}

}  // namespace disco_fast
