#include "launch.cuh"
#include "sp_diffuse.cuh"
#include "sp_diffuse_mma.cuh"

namespace disco_fast {
namespace {

// The kernel for tensor cores, or null where there is none for these views; `first` is the
// features' view without the leading channel.
template <class T>
auto* mma_kernel(const SpDiffuseArgs& args, const View& first) {
  const View& all = args.features;
  const int64_t width = args.channels + (args.lead.data != nullptr);
  auto* kernel = sp_diffuse_mma_kernel<T, Spread::kPlanar>;
  if (!fits_mma(args.grid, all, args.association, args.lead)) return decltype(kernel)(nullptr);
  if (has_groups<T>(first, args.channels, true)) return kernel;
  if (has_groups<T>(first, args.channels, false)) return sp_diffuse_mma_kernel<T, Spread::kPacked>;
  View groups = all;  // of pixels: the start of every row counts
  groups.column = 0;
  const bool dense = all.channel == 1 && all.column == width && width <= kDenseChannels &&
                     args.channels % kGroup == 0;
  return dense && divisible<T>(groups, kGroup, false) ? sp_diffuse_mma_kernel<T, Spread::kDense>
                                                      : nullptr;
}

template <class T>
cudaError_t launch_cells(const SpDiffuseArgs& args, cudaStream_t stream) {
  View first = args.features;  // a leading channel moves the address of the others
  if (args.lead.data != nullptr) first.data = static_cast<const T*>(first.data) + first.channel;
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
