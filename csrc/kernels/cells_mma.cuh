// What the superpixel kernels for tensor cores share: 16-bit types, cells of 8, 16, 32, .. pixels a
// side, channels in groups of eight. A warp takes 32 pixels of a cell and up to 64 channels at a
// time; eight neighbors, 16 bytes, are moved at once.
#pragma once

#include "cells.cuh"
#include "mma.cuh"

namespace disco_fast {

constexpr int kMmaThreads = 128;
constexpr int kMmaWarps = kMmaThreads / kWarp;
constexpr int kGroup = 8;                        // neighbors moved at once
constexpr int kTiles = kBlockChannels / kGroup;  // of eight channels
typedef Pack<unsigned, kGroup / 2> Group;        // eight elements of 16 bits

// Grid: columns x rows x images, for 64 channels from `first_channel` on. Sizes and strides are
// unsigned numbers of 32 bits, so that an address takes few instructions.
struct MmaCell {
  __device__ __forceinline__ MmaCell(const Grid& grid, int64_t all_channels, int first_channel)
      : row(blockIdx.y), column(blockIdx.x) {
    // Not in the list above: a host's compiler, which is shown that, knows no __clz.
    log_size = 31 - __clz(int(grid.cell));
    channels = min(int(all_channels) - first_channel, kBlockChannels);
  }

  __device__ __forceinline__ unsigned area() const { return 1u << 2 * log_size; }

  // Bit `slot`: the candidate is in the grid.
  __device__ __forceinline__ unsigned inside(const Grid& grid) const {
    return 511 & ~(row > 0 ? 0 : 0007) & ~(row + 1 < unsigned(grid.rows) ? 0 : 0700) &
           ~(column > 0 ? 0 : 0111) & ~(column + 1 < unsigned(grid.columns) ? 0 : 0444);
  }

  __device__ __forceinline__ int64_t index(const Grid& grid) const {
    return (uint64_t(blockIdx.z) * unsigned(grid.rows) + row) * unsigned(grid.columns) + column;
  }

  // The cell's first pixel, in the view's first channel.
  template <class T>
  __device__ __forceinline__ T* corner(const View& view) const {
    T* data = static_cast<T*>(const_cast<void*>(view.data)) + blockIdx.z * view.image;
    return data + uint64_t(unsigned(view.row)) * (row << log_size) +
           uint64_t(unsigned(view.column)) * (column << log_size);
  }

  // Pixel `pixel` of the cell, from there.
  __device__ __forceinline__ uint64_t offset(const View& view, unsigned pixel) const {
    return uint64_t(unsigned(view.row)) * (pixel >> log_size) +
           uint64_t(unsigned(view.column)) * (pixel & ((1u << log_size) - 1));
  }

  unsigned row, column;
  int log_size, channels;
};

// A 16-bit element as it lies in memory.
template <class T>
__device__ __forceinline__ float widen_bits(uint16_t bits) {
  T value;
  memcpy(&value, &bits, sizeof value);
  return widen(value);
}

// The candidates of pixel `pixel` of the cell, as they are.
template <class T>
__device__ __forceinline__ void load_bits(const View& association, const MmaCell& cell,
                                          const T* corner, unsigned pixel, uint16_t (&bits)[9]) {
  const T* from = corner + cell.offset(association, pixel);
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
    bits[slot] = *reinterpret_cast<const uint16_t*>(from);
    from += unsigned(association.channel);
  }
}

}  // namespace disco_fast
