#include "convolve.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

template <class Tile>
dim3 blocks_of(const ConvolveArgs& args) {
  const int64_t columns = ceil_div(args.columns, Tile::kColumns);
  return dim3(unsigned(columns * ceil_div(args.outputs, Tile::kOutputs)),
              unsigned(ceil_div(args.rows, Tile::kRows)), unsigned(args.images));
}

// Whether small tiles are the faster ones: where large ones would leave more than a tenth of the
// multiprocessors without a block.
cudaError_t suits_small(const ConvolveArgs& args, bool* small) {
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  }
  const dim3 blocks = blocks_of<LargeTile>(args);
  *small = 10 * int64_t(blocks.x) * blocks.y * blocks.z < 9 * int64_t(processors);
  return error;
}

template <class T, class Tile>
cudaError_t launch_tile(const ConvolveArgs& args, cudaStream_t stream) {
  const auto kernel =
      args.residual == nullptr ? convolve_kernel<T, Tile, false> : convolve_kernel<T, Tile, true>;
  if (!has_tensor_cores(kernel)) return cudaErrorNoKernelImageForDevice;
  return launch(kernel, blocks_of<Tile>(args), Tile::kThreads, sizeof(ConvolveShared<T, Tile>),
                stream, args);
}

template <class T>
cudaError_t launch_element(const ConvolveArgs& args, cudaStream_t stream) {
  if (args.outputs <= NarrowTile::kOutputs) return launch_tile<T, NarrowTile>(args, stream);
  bool small = false;
  const cudaError_t error = suits_small(args, &small);
  if (error != cudaSuccess) return error;
  return small ? launch_tile<T, SmallTile>(args, stream) : launch_tile<T, LargeTile>(args, stream);
}

// Whether the grid is one, and what the kernels count in 32 bits stays below 2^31.
bool is_short(const ConvolveArgs& args) {
  constexpr int64_t kEnd = int64_t(1) << 31, kBlocks = 65535;
  return args.rows * args.columns < kEnd && 9 * args.inputs * args.outputs < kEnd &&
         args.rows <= SmallTile::kRows * kBlocks && args.images <= kBlocks;
}

}  // namespace

cudaError_t launch_convolve(const ConvolveArgs& args, cudaStream_t stream) {
  if (!is_short(args)) return cudaErrorInvalidValue;
  switch (args.element) {
    case Element::kBFloat16:
      return launch_element<__nv_bfloat16>(args, stream);
    case Element::kFloat16:
      return launch_element<__half>(args, stream);
    case Element::kFloat32:
      return launch_element<float>(args, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace disco_fast
