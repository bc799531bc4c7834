// Where the cells of an association map lie, for the CPU's kernels and for the GPU's.
//
// The CPU's have a copy for each instruction set, in the namespace of that set; see csrc/README.md.
#pragma once

#include "args.h"

#if defined(DISCO_FAST_ISA)
#define DISCO_FAST_CELLS disco_fast::DISCO_FAST_ISA
#define DISCO_FAST_INLINE inline
#else
#include <cuda_runtime.h>
#define DISCO_FAST_CELLS disco_fast
#define DISCO_FAST_INLINE __device__ __forceinline__
#endif

namespace DISCO_FAST_CELLS {

#if defined(DISCO_FAST_ISA)
typedef int64_t CellNumber;
typedef int64_t CellPlace;
#else
// A grid of blocks is less than 2^31, and so are cells and their numbers: divisions are of 32 bits.
typedef unsigned CellNumber;
typedef int CellPlace;
#endif

// Position of number `index` among the cells of all images.
struct Cell {
  DISCO_FAST_INLINE Cell(const Grid& grid, CellNumber index) {
    const CellNumber cells = CellNumber(grid.cells()), columns = CellNumber(grid.columns);
    const CellNumber within = index % cells;
    image = index / cells;
    row = CellPlace(within / columns);
    column = CellPlace(within % columns);
  }
  int64_t image;
  CellPlace row, column;
};

// The cell in direction `slot` (0..8, row-major, 4 is the cell itself), or -1 outside the grid.
DISCO_FAST_INLINE CellPlace neighbor(const Grid& grid, CellPlace row, CellPlace column, int slot) {
  const CellPlace y = row + slot / 3 - 1, x = column + slot % 3 - 1;
  const bool inside = y >= 0 && y < CellPlace(grid.rows) && x >= 0 && x < CellPlace(grid.columns);
  return inside ? y * CellPlace(grid.columns) + x : -1;
}

template <class T>
DISCO_FAST_INLINE T* at(const View& view, int64_t image, int64_t channel, int64_t row,
                        int64_t column) {
  T* data = static_cast<T*>(const_cast<void*>(view.data));
  return data + image * view.image + channel * view.channel + row * view.row + column * view.column;
}

template <class T>
DISCO_FAST_INLINE T* cell_corner(const View& view, const Grid& grid, const Cell& cell) {
  return at<T>(view, cell.image, 0, cell.row * grid.cell, cell.column * grid.cell);
}

}  // namespace DISCO_FAST_CELLS
