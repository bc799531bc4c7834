#include "launch.cuh"
#include "sp_diffuse.cuh"

namespace disco_fast {

cudaError_t launch_diffuse(const DiffuseArgs& args, cudaStream_t stream) {
  const int64_t cells = args.grid.images * args.grid.cells();
  const int64_t blocks = channel_blocks(args.channels);
  if (!fits_grid(cells, blocks)) return cudaErrorInvalidValue;
  return with_element(args.element, [&](auto t) {
    typedef decltype(t) T;
    View first = args.features;  // a leading channel moves the address of the others
    if (args.lead.data != nullptr) first.data = static_cast<const T*>(first.data) + first.channel;
    return with_layout(layout_of<T>(first, args.grid, args.channels), [&](auto layout) {
      const int quads = quads_for(args.channels);
      return with_quads<T, layout.value>(quads, [&](auto known) {
        return launch(diffuse_kernel<T, layout.value, known.value>, grid_of(cells, blocks),
                      kCellThreads, 0, stream, args, quads);
      });
    });
  });
}

}  // namespace disco_fast
