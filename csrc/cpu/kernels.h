// The CPU kernels: raw pointers, strides and ranges, no torch header.
//
// kernels.cpp is compiled once per instruction set; `best_kernels` picks the fastest one that this
// processor has. A range function does the work items begin..end-1 and may run beside others of the
// same call: the tensor layer spreads the items over torch's thread pool. Sums never cross items,
// so results do not depend on the threads.
#pragma once

#include <cstdint>

#include "../args.h"

namespace disco_fast {

// Layouts of features that the vector loops know: columns adjacent ("planar") or channels adjacent
// ("interleaved"). Other tensors may have any strides. SpPoolArgs::wins is not used here:
// superpixel sizes have loops of their own.
struct SuperpixelSizeArgs {
  Element element;
  Grid grid;
  View association;  // [N, 9, H, W], any strides
  int32_t* wins;     // scratch [N, cells, 9]
  void* size;        // out [N, 1, rows, columns], wide, contiguous
};

// The encoder takes blocks of so many tokens of an image, and so many floats of workspace for each.
constexpr int kEncoderBlock = 32;
constexpr int kEncoderFloats = 7 * kTokenDim;
constexpr int64_t encoder_blocks(int64_t count) {
  return (count + kEncoderBlock - 1) / kEncoderBlock;
}

struct Kernels {
  const char* name;
  // Items are cells of all images (N * cells), except where said.
  void (*sp_pool_cells)(const SpPoolArgs&, int64_t begin, int64_t end);         // fills `partial`
  void (*sp_pool_gather_cells)(const SpPoolArgs&, int64_t begin, int64_t end);  // after all of them
  void (*sp_diffuse_cells)(const SpDiffuseArgs&, int64_t begin, int64_t end);
  void (*sp_correlate_cells)(const SpCorrelateArgs&, int64_t begin, int64_t end);
  void (*superpixel_size_count)(const SuperpixelSizeArgs&, int64_t begin,
                                int64_t end);  // fills `wins`
  void (*superpixel_size_gather)(const SuperpixelSizeArgs&, int64_t begin,
                                 int64_t end);                           // after all of them
  void (*kmeans_images)(const KMeansArgs&, int64_t begin, int64_t end);  // items: images
  void (*kmeans_init_images)(const KMeansInitArgs&, int64_t begin, int64_t end);  // items: images
  void (*anchor_images)(const AnchorArgs&, int64_t begin, int64_t end);           // items: images
  // Items: N * encoder_blocks. For each step of 0..layers in turn, after all of the last.
  void (*encode_blocks)(const EncoderArgs&, int64_t step, int64_t begin, int64_t end);
  // Items: rows where inner is 1, else rows * channels.
  void (*bias_act_rows)(const BiasActArgs&, int64_t begin, int64_t end);
  void (*quantize_rows)(const QuantizeArgs&, int64_t begin, int64_t end);    // items: rows of out
  void (*rgb_to_l_pixels)(const RgbToLArgs&, int64_t begin, int64_t end);    // items: N * pixels
  void (*lab_to_rgb_rows)(const LabToRgbArgs&, int64_t begin, int64_t end);  // items: N * rows
};

// The table of each instruction set.
namespace baseline {
const Kernels& kernels();
}
#if defined(__x86_64__)
namespace avx2 {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}
#endif

const Kernels& best_kernels();

}  // namespace disco_fast
