// One instruction set's table of kernels; compiled once per set with DISCO_FAST_ISA and the
// matching flags.
#include "kernels.h"

#include "anchors.h"
#include "bias_act.h"
#include "cells.h"
#include "color.h"
#include "encoder.h"
#include "kmeans.h"
#include "sp_correlate.h"
#include "sp_diffuse.h"
#include "sp_pool.h"
#include "superpixel_size.h"

#define DISCO_FAST_STRING_(x) #x
#define DISCO_FAST_STRING(x) DISCO_FAST_STRING_(x)

namespace disco_fast::DISCO_FAST_ISA {

const Kernels& kernels() {
  static constexpr Kernels table = {
      DISCO_FAST_STRING(DISCO_FAST_ISA),
      aggregate_cells,
      gather_cells,
      diffuse_cells,
      correlate_cells,
      count_wins,
      gather_wins,
      kmeans_images,
      kmeans_init_images,
      anchor_images,
      encode_blocks,
      bias_act_rows,
      lightness_pixels,
      rgb_rows,
  };
  return table;
}

}  // namespace disco_fast::DISCO_FAST_ISA
