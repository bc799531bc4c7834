// The host side of a launch: grid, shared memory, and the kernel for an element type and a layout.
#pragma once

#include <map>
#include <mutex>
#include <utility>

#include "cells_mma.cuh"
#include "kernels.h"

namespace disco_fast {

// Lets a block of the kernel have all the shared memory of the current device beside its static
// memory. Once for both: what is allowed belongs to the function, so that another thread's smaller
// launch would take it back from a larger one. What a block gets is what its launch asks for.
inline cudaError_t allow_shared_memory(const void* kernel) {
  static std::mutex mutex;
  static std::map<std::pair<const void*, int>, int> allowed;  // bytes, by kernel and device
  int device = 0, limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) {
    error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  }
  cudaFuncAttributes own = {};
  if (error == cudaSuccess) error = cudaFuncGetAttributes(&own, kernel);
  if (error != cudaSuccess) return error;
  const int bytes = limit - int(own.sharedSizeBytes);
  const std::lock_guard<std::mutex> lock(mutex);
  int& before = allowed[{kernel, device}];
  if (before == bytes) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (error == cudaSuccess) before = bytes;
  return error;
}

// Launches kernel(args...); a grid without blocks is none.
template <class... Params, class... Args>
cudaError_t launch_with(cudaLaunchAttribute* attribute, void (*kernel)(Params...), dim3 grid,
                        int threads, size_t shared, cudaStream_t stream, const Args&... args) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared > 0) {
    const cudaError_t refused = allow_shared_memory(reinterpret_cast<const void*>(kernel));
    if (refused != cudaSuccess) return refused;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(unsigned(threads));
  config.dynamicSmemBytes = shared;
  config.stream = stream;
  config.attrs = attribute;
  config.numAttrs = attribute != nullptr;
  return cudaLaunchKernelEx(&config, kernel, args...);
}

template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, int threads, size_t shared,
                   cudaStream_t stream, const Args&... args) {
  return launch_with(nullptr, kernel, grid, threads, shared, stream, args...);
}

// All blocks are resident at once, so that they may wait for one another.
template <class... Params, class... Args>
cudaError_t launch_cooperative(void (*kernel)(Params...), dim3 grid, int threads, size_t shared,
                               cudaStream_t stream, const Args&... args) {
  cudaLaunchAttribute cooperative = {};
  cooperative.id = cudaLaunchAttributeCooperative;
  cooperative.val.cooperative = 1;
  return launch_with(&cooperative, kernel, grid, threads, shared, stream, args...);
}

// A grid of x by y blocks. CUDA allows 2^31 - 1 by 65,535 of them.
inline bool fits_grid(int64_t x, int64_t y) { return x < (int64_t(1) << 31) && y < (1 << 16); }
inline dim3 grid_of(int64_t x, int64_t y = 1) { return dim3(unsigned(x), unsigned(y)); }

template <class Body>
cudaError_t with_element(Element element, const Body& body) {
  switch (element) {
    case Element::kFloat32:
      return body(float{});
    case Element::kFloat64:
      return body(double{});
    case Element::kBFloat16:
      return body(__nv_bfloat16{});
    case Element::kFloat16:
      return body(__half{});
  }
  return cudaErrorInvalidValue;
}

template <class Body>
cudaError_t with_wide_element(Element element, const Body& body) {
  return element == Element::kFloat64 ? body(double{}) : body(float{});
}

// The address, and every stride but the one along which packs lie, is a multiple of `count`
// elements.
template <class T>
bool divisible(const View& view, int64_t count, bool along_row) {
  const int64_t across = along_row ? view.channel : view.column;
  const bool aligned = reinterpret_cast<uintptr_t>(view.data) % (count * sizeof(T)) == 0;
  return aligned && view.image % count == 0 && view.row % count == 0 && across % count == 0;
}

// How [N, C, H, W] features can be moved.
template <class T>
Layout layout_of(const View& features, const Grid& grid, int64_t channels) {
  constexpr int kPixels = kRun<T, Layout::kPlanar>;
  if (features.column == 1 && grid.cell % kPixels == 0 && divisible<T>(features, kPixels, true)) {
    return Layout::kPlanar;
  }
  if (features.channel == 1 && grid.cell % kRun<T, Layout::kInterleaved> == 0 &&
      channels % kQuad == 0 && divisible<T>(features, kQuad, false)) {
    return Layout::kInterleaved;
  }
  return Layout::kScalar;
}

// Whether kernels for tensor cores can work on these cells and views; see cells_mma.cuh.
template <class... Views>
bool fits_mma(const Grid& grid, const Views&... views) {
  const auto is_short = [](const View& view) {
    return view.channel < (1 << 30) && view.row < (1 << 30) && view.column < (1 << 30);
  };
  return grid.cell % kGroup == 0 && (grid.cell & (grid.cell - 1)) == 0 && grid.cell < (1 << 15) &&
         grid.rows < (1 << 16) && grid.images < (1 << 16) && (is_short(views) && ...);
}

// Whether groups of pixels of a row can be moved, or else of channels of a pixel.
template <class T>
bool has_groups(const View& features, int64_t channels, bool of_pixels) {
  return (of_pixels ? features.column : features.channel) == 1 && channels > 0 &&
         channels % kGroup == 0 && divisible<T>(features, kGroup, of_pixels);
}

// Launches kernel(args, first channel) for each 64 channels.
template <class Args>
cudaError_t launch_mma(void (*kernel)(Args, int), const Grid& grid, int64_t channels,
                       cudaStream_t stream, const Args& args) {
  const dim3 cells(unsigned(grid.columns), unsigned(grid.rows), unsigned(grid.images));
  cudaError_t error = cudaSuccess;
  for (int first = 0; first < channels && error == cudaSuccess; first += kBlockChannels) {
    error = launch(kernel, cells, kMmaThreads, 0, stream, args, first);
  }
  return error;
}

// Whether the code that runs of a kernel is for tensor cores; on a new GPU it may be older than
// that.
template <class Kernel>
bool has_tensor_cores(Kernel* kernel) {
  cudaFuncAttributes attributes = {};
  const cudaError_t error =
      cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel));
  return error == cudaSuccess && attributes.ptxVersion >= kTensorArch;
}

template <Layout L>
struct LayoutTag {
  static constexpr Layout value = L;
};

template <int kQuads>
struct QuadsTag {
  static constexpr int value = kQuads;
};

template <class Body>
cudaError_t with_layout(Layout layout, const Body& body) {
  switch (layout) {
    case Layout::kScalar:
      return body(LayoutTag<Layout::kScalar>{});
    case Layout::kPlanar:
      return body(LayoutTag<Layout::kPlanar>{});
    case Layout::kInterleaved:
      return body(LayoutTag<Layout::kInterleaved>{});
  }
  return cudaErrorInvalidValue;
}

// Quads of channels that the threads of a block share: a power of two.
inline int quads_for(int64_t channels) {
  int quads = 1;
  while (quads < kMaxQuads && quads * kQuad < channels) quads *= 2;
  return quads;
}

// Calls body(integral constant): the number of quads, where it is the most, and vectors of a common
// type are moved; else 0, which stands for any.
template <class T, Layout L, class Body>
cudaError_t with_quads(int quads, const Body& body) {
  if constexpr (L != Layout::kScalar && sizeof(T) <= sizeof(float)) {
    if (quads == kMaxQuads) return body(QuadsTag<kMaxQuads>{});
  }
  return body(QuadsTag<0>{});
}

// Blocks of channels; one even where there are none, for the weights.
inline int64_t channel_blocks(int64_t channels) {
  return channels > 0 ? ceil_div(channels, kBlockChannels) : 1;
}

}  // namespace disco_fast
