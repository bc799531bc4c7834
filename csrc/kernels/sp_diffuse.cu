#include "launch.cuh"
#include "sp_diffuse.cuh"
#include "sp_diffuse_mma.cuh"

namespace disco_fast {
namespace {

// The kernel for tensor cores, or null where there is none for these views; `first` is the
// features' view without the leading channels.
template <class T>
auto* mma_kernel(const SpDiffuseArgs& args, const View& first) {
  auto* kernel = sp_diffuse_mma_kernel<T, Spread::kPlanar>;
  if (!fits_mma(args.grid, first, args.association, args.lead)) return decltype(kernel)(nullptr);
  if (has_groups<T>(first, args.channels, true)) return kernel;
  const bool packed =
      has_groups<T>(first, args.channels, false) && args.lead_channels % kGroup == 0;
  return packed ? sp_diffuse_mma_kernel<T, Spread::kPacked> : nullptr;
}

template <class T>
cudaError_t launch_cells(const SpDiffuseArgs& args, cudaStream_t stream) {
  View first = args.features;  // leading channels move the address of the others
  first.data = static_cast<const T*>(first.data) + args.lead_channels * first.channel;
  if constexpr (sizeof(T) == 2) {
    auto* kernel = mma_kernel<T>(args, first);
    if (kernel != nullptr && has_tensor_cores(kernel)) {
      return launch_mma<SpDiffuseArgs>(kernel, args.grid, args.channels, stream, args);
    }
  }
  const dim3 cells = grid_of(args.grid.images * args.grid.cells(), channel_blocks(args.channels));
  return with_layout(layout_of<T>(first, args.grid, args.channels), [&](auto layout) {
    const int quads = quads_for(args.channels);
    return with_quads<T, layout.value>(quads, [&](auto known) {
      return launch(sp_diffuse_kernel<T, layout.value, known.value>, cells, kCellThreads, 0, stream,
                    args, quads);
    });
  });
}

}  // namespace

cudaError_t launch_sp_diffuse(const SpDiffuseArgs& args, cudaStream_t stream) {
  if (!fits_grid(args.grid.images * args.grid.cells(), channel_blocks(args.channels))) {
    return cudaErrorInvalidValue;
  }
  return with_element(args.element,
                      [&](auto t) { return launch_cells<decltype(t)>(args, stream); });
}

}  // namespace disco_fast
