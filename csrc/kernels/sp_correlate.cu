#include "launch.cuh"
#include "sp_correlate.cuh"

namespace disco_fast {

cudaError_t launch_sp_correlate(const SpCorrelateArgs& args, cudaStream_t stream) {
  const int64_t cells = args.grid.images * args.grid.cells();
  const int64_t tiles = ceil_div(args.grid.cell * args.grid.cell, kTile);
  if (!fits_grid(cells, tiles)) return cudaErrorInvalidValue;
  return with_element(args.element, [&](auto t) {
    typedef decltype(t) T;
    // A thread reads single pixels: of planar features neighboring threads read neighbors.
    const bool interleaved =
        layout_of<T>(args.features, args.grid, args.channels) == Layout::kInterleaved;
    return launch(interleaved ? sp_correlate_kernel<T, Layout::kInterleaved>
                              : sp_correlate_kernel<T, Layout::kScalar>,
                  grid_of(cells, tiles), kCellThreads, 0, stream, args);
  });
}

}  // namespace disco_fast
