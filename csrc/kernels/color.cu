#include <algorithm>

#include "color.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

// Packs of T can be moved from and to this address.
template <class T>
bool packable(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % alignof(Pack<T, kColorRun>) == 0;
}

int64_t blocks_for(int64_t pixels, bool packed) {
  return ceil_div(pixels, packed ? kColorThreads * kColorRun : kColorThreads);
}

template <class W, class In>
cudaError_t launch_lightness_of(const RgbToLArgs& args, cudaStream_t stream) {
  const bool packed =
      args.pixels % kColorRun == 0 && packable<In>(args.image) && packable<W>(args.lightness);
  const int64_t blocks = blocks_for(args.pixels, packed);
  if (!fits_grid(blocks, args.images)) return cudaErrorInvalidValue;
  return launch(packed ? rgb_to_l_kernel<W, In, true> : rgb_to_l_kernel<W, In, false>,
                grid_of(blocks, args.images), kColorThreads, 0, stream, args);
}

template <class W, class Out>
cudaError_t launch_rgb_of(const LabToRgbArgs& args, cudaStream_t stream) {
  constexpr int64_t kMostRows = 65535;  // of a grid
  const bool packed =
      args.columns % kColorRun == 0 && packable<W>(args.lightness) && packable<Out>(args.rgb);
  const int64_t rows = args.images * args.rows;
  for (int64_t first = 0; first < rows; first += kMostRows) {
    const dim3 grid = grid_of(blocks_for(args.columns, packed), std::min(rows - first, kMostRows));
    const cudaError_t error =
        launch(packed ? lab_to_rgb_kernel<W, Out, true> : lab_to_rgb_kernel<W, Out, false>, grid,
               kColorThreads, 0, stream, args, first);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace

cudaError_t launch_rgb_to_l(const RgbToLArgs& args, cudaStream_t stream) {
  return with_wide_element(args.element, [&](auto w) {
    typedef decltype(w) W;
    return args.bytes ? launch_lightness_of<W, uint8_t>(args, stream)
                      : launch_lightness_of<W, W>(args, stream);
  });
}

cudaError_t launch_lab_to_rgb(const LabToRgbArgs& args, cudaStream_t stream) {
  return with_wide_element(args.element, [&](auto w) {
    typedef decltype(w) W;
    return args.bytes ? launch_rgb_of<W, uint8_t>(args, stream) : launch_rgb_of<W, W>(args, stream);
  });
}

}  // namespace disco_fast
