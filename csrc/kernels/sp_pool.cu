#include "launch.cuh"
#include "sp_pool.cuh"
#include "sp_pool_mma.cuh"

namespace disco_fast {
namespace {

// The first step: each cell by itself. Features are of type T, the association of type A.
template <class T, class A>
cudaError_t launch_cells(const SpPoolArgs& args, dim3 cells, cudaStream_t stream) {
  if constexpr (sizeof(A) == 2) {
    const bool planar = args.features.column == 1;
    auto* kernel = planar ? sp_pool_mma_kernel<T, Layout::kPlanar>
                          : sp_pool_mma_kernel<T, Layout::kInterleaved>;
    if (fits_mma(args.grid, args.features, args.association) &&
        has_groups<T>(args.features, args.channels, planar) && has_tensor_cores(kernel)) {
      return launch_mma<SpPoolArgs>(kernel, args.grid, args.channels, stream, args);
    }
  }
  return with_layout(layout_of<T>(args.features, args.grid, args.channels), [&](auto tag) {
    const int quads = quads_for(args.channels);
    return with_quads<T, tag.value>(quads, [&](auto known) {
      return launch(sp_pool_kernel<T, A, tag.value, known.value>, cells, kCellThreads, 0, stream,
                    args, quads);
    });
  });
}

}  // namespace

cudaError_t launch_sp_pool(const SpPoolArgs& args, cudaStream_t stream) {
  const Grid& grid = args.grid;
  const int64_t cells = grid.images * grid.cells(), blocks = channel_blocks(args.channels);
  const int64_t tiles = grid.images * ceil_div(grid.cells(), kGathered);
  const int64_t gather_blocks = args.channels > 0 ? ceil_div(args.channels, kWarp) : 1;
  if (!fits_grid(cells, gather_blocks) || !fits_grid(tiles, blocks)) return cudaErrorInvalidValue;
  const cudaError_t error = with_element(args.features_element, [&](auto t) {
    typedef decltype(t) T;
    const dim3 all = grid_of(cells, blocks);
    if (args.features_element == args.element) return launch_cells<T, T>(args, all, stream);
    if constexpr (sizeof(T) == 2) return launch_cells<T, float>(args, all, stream);
    return cudaErrorInvalidValue;
  });
  if (error != cudaSuccess) return error;
  return with_wide_element(args.element, [&](auto w) {
    return launch(sp_pool_gather_kernel<decltype(w)>, grid_of(tiles, gather_blocks), kGatherThreads,
                  0, stream, args);
  });
}

}  // namespace disco_fast
