// One instruction set's table of kernels; compiled once per set with DISCO_FAST_ISA and the
// matching flags.
#include "kernels.h"

#include "anchors.h"
#include "bias_act.h"
#include "cells.h"
#include "color.h"
#include "encoder.h"
#include "kmeans.h"
#include "quantize.h"
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
      sp_pool_cells,
      sp_pool_gather_cells,
      sp_diffuse_cells,
      sp_correlate_cells,
      superpixel_size_count,
      superpixel_size_gather,
      kmeans_images,
      kmeans_init_images,
      anchor_images,
      encode_blocks,
      bias_act_rows,
      quantize_rows,
      rgb_to_l_pixels,
      lab_to_rgb_rows,
  };
  return table;
}

}  // namespace disco_fast::DISCO_FAST_ISA
