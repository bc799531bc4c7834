#include "launch.cuh"
#include "sp_pool.cuh"

namespace disco_fast {

cudaError_t launch_aggregate(const AggregateArgs& args, cudaStream_t stream) {
  const Grid& grid = args.grid;
  const int64_t cells = grid.images * grid.cells(), blocks = channel_blocks(args.channels);
  const int64_t tiles = grid.images * ceil_div(grid.cells(), kGatherTile);
  const int64_t gather_blocks = args.channels > 0 ? ceil_div(args.channels, kGatherTile) : 1;
  if (!fits_grid(cells, gather_blocks)) return cudaErrorInvalidValue;
  const cudaError_t error = with_element(args.element, [&](auto t) {
    typedef decltype(t) T;
    return with_layout(layout_of<T>(args.features, grid, args.channels), [&](auto layout) {
      const int quads = quads_for(args.channels);
      return with_quads<T, layout.value>(quads, [&](auto known) {
        return launch(aggregate_kernel<T, layout.value, known.value>, grid_of(cells, blocks),
                      kCellThreads, 0, stream, args, quads);
      });
    });
  });
  if (error != cudaSuccess) return error;
  return with_wide_element(args.element, [&](auto w) {
    return launch(gather_kernel<decltype(w)>, grid_of(tiles, gather_blocks), kGatherThreads, 0,
                  stream, args);
  });
}

}  // namespace disco_fast
