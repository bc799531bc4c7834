// What a kernel is told: sizes, strides and raw pointers. Shared by the CPU and the CUDA kernels
// and by the tensor layer that fills it in; no torch header.
#pragma once

#include <cstdint>

namespace disco_fast {

enum class Element { kFloat32, kFloat64, kBFloat16, kFloat16 };

// A [N, C, H, W] tensor; strides in elements.
struct View {
  const void* data;
  int64_t image, channel, row, column;
};

// The superpixel grid: rows x columns cells of cell x cell pixels in each image.
struct Grid {
  int64_t images, rows, columns, cell;
  constexpr int64_t cells() const { return rows * columns; }
};

// Pixel tensors are of type `element`, superpixel tensors of the wide type: double for kFloat64,
// else float. Scratch need not be initialized.

// SP-Pooling, the plain weighted sums, and superpixel sizes: each output is optional.
struct SpPoolArgs {
  Element element;           // of the association
  Element features_element;  // the same, or 16 bits beside kFloat32
  Grid grid;
  int64_t channels;  // 0: no features, no sums
  View features;     // [N, C, H, W]
  View association;  // [N, 9, H, W]
  bool normalize;    // divide the sums by (weight + 1e-8), as SP-Pooling does
  void* partial;     // scratch [N, cells, 9, C + 1], wide
  int32_t* wins;     // scratch [N, cells, 9]; may be null: no sizes
  void* sums;        // out [N, C, rows, columns], wide, contiguous
  void* weight;      // out [N, 1, rows, columns], wide, contiguous
  void* size;        // out [N, 1, rows, columns], wide, contiguous; null where `wins` is
};

struct SpDiffuseArgs {
  Element element;
  Grid grid;
  int64_t channels, lead_channels;  // lead_channels: L, 0 without a lead
  View tokens;                      // [N, C, rows, columns], wide
  View association;                 // [N, 9, H, W]
  View lead;      // [N, 1, H, W], the first of L channels, of which the rest are 0
  View features;  // out [N, L + C, H, W]
};

struct SpCorrelateArgs {
  Element element;
  Grid grid;
  int64_t channels;
  View features;      // [N, C, H, W]
  View tokens;        // [N, C, rows, columns], wide
  View offset;        // [N, 1, rows, columns], wide; data may be null
  void* association;  // out [N, 9, H, W], element, contiguous
};

struct KMeansArgs {
  Element element;  // kFloat32 or kFloat64
  int64_t images, points, dims, clusters;
  int64_t max_iter;
  double tol;
  const void* data;     // [N, P, D], contiguous
  const int64_t* init;  // [N, K], each in 0..P-1
  void* workspace;      // scratch of `kmeans_workspace` bytes (CUDA)
  int64_t* labels;      // out [N, P]
  void* centers;        // out [N, K, D]
  int64_t* iterations;  // out [N]
};

struct KMeansInitArgs {
  Element element;  // kFloat32 or kFloat64
  int64_t images, points, dims, clusters;
  int64_t seed;
  bool plus_plus;
  const void* data;  // [N, P, D], contiguous
  void* nearest;     // scratch [N, P], element (CUDA)
  int64_t* init;     // out [N, K]
};

// Anchors and their colors: `labels` may be null (then `anchors` are given), and so may `logits`
// (then no colors are wanted). A bin's score is its logit plus its offset.
struct AnchorArgs {
  Element element;  // of sizes and logits: kFloat32 or kFloat64
  int64_t images, points, clusters;
  const int64_t* labels;  // [N, P]
  const void* sizes;      // [N, P]
  int64_t bins, variants;
  const void* logits;        // [N, P, bins]
  const void* offset;        // [bins], added to logits; may be null
  double temperature;        // of the mean color; 0: the best bin itself
  const float* bin_centers;  // [bins, 2], ab
  int64_t* anchors;          // out, or in, [N, K]
  int64_t* colors;           // out [N, variants, K]: bins
};

// Widths of the encoder of superpixels' tokens.
constexpr int kTokenDim = 64, kHeads = 8, kHeadDim = kTokenDim / kHeads, kHidden = 4 * kTokenDim;

// Where the parameters of an encoder layer begin in its row of weights; reference/ has the same
// order. Matrices are [inputs, outputs]; the first gives queries, keys and values side by side.
struct EncoderLayer {
  static constexpr int kProjected = 3 * kTokenDim;
  static constexpr int kInWeight = 0;
  static constexpr int kInBias = kInWeight + kTokenDim * kProjected;
  static constexpr int kOutWeight = kInBias + kProjected;
  static constexpr int kOutBias = kOutWeight + kTokenDim * kTokenDim;
  static constexpr int kHiddenWeight = kOutBias + kTokenDim;
  static constexpr int kHiddenBias = kHiddenWeight + kTokenDim * kHidden;
  static constexpr int kLastWeight = kHiddenBias + kHidden;
  static constexpr int kLastBias = kLastWeight + kHidden * kTokenDim;
  static constexpr int kNorm1 = kLastBias + kTokenDim;  // scale, then shift
  static constexpr int kNorm2 = kNorm1 + 2 * kTokenDim;
  static constexpr int kSize = kNorm2 + 2 * kTokenDim;
};
constexpr float kNormEpsilon = 1e-5f;
// Of queries, so that scores are logarithms to base 2: log2(e) / sqrt(kHeadDim).
constexpr float kScoreScale = 0.510069723f;

struct EncoderArgs {
  int64_t images, count, layers;  // count: P, the tokens of an image
  const float* tokens;            // [N, P, kTokenDim], contiguous
  const float* position;          // [P, kTokenDim], contiguous
  const float* weights;           // [layers, EncoderLayer::kSize], contiguous, 16-byte aligned
  float* workspace;               // scratch of the backend's size, 16-byte aligned
  float* result;                  // out [N, P, kTokenDim], contiguous
};

// What follows a convolution: (x + bias + residual), times `slope` where negative, times scale,
// plus shift. Tensors are [rows, channels, inner]: inner is 1 where channels are adjacent.
struct BiasActArgs {
  Element element;
  int64_t rows, channels, inner;
  int64_t lead_channels;
  double slope;
  const void *x, *residual;          // residual may be null
  const void *bias, *scale, *shift;  // [channels], wide; each may be null
  const void* lead;                  // [rows, lead_channels, inner]
  void* out;                         // [rows, lead_channels + channels, inner]
};

// A 3x3 convolution with a border of one zero, and what follows it, as above.
struct ConvolveArgs {
  Element element;                // but kFloat64; kFloat32 is multiplied as TF32
  int64_t images, rows, columns;  // of x and of the result
  int64_t inputs, outputs;        // channels, of 16 bytes or a multiple
  double slope;
  const void* x;                     // [N, H, W, inputs], 16-byte aligned as all below
  const void* weight;                // [outputs, 3, 3, inputs]
  const void* residual;              // like out; may be null
  const void *bias, *scale, *shift;  // [outputs], fp32; each may be null
  void* out;                         // [N, H, W, outputs]
};

struct AssociateArgs {
  Element element;
  int64_t images, pixels, channels;  // H * W; at least 9 channels
  const void* logits;                // [N, H, W, channels]
  const void* bias;                  // [9], wide; may be null
  void* association;                 // [N, 9, H, W], wide
};

struct QuantizeArgs {
  Element element;  // but kFloat64
  int64_t images, rows, columns, channels, padding;
  double slope;
  int zero;                    // the byte of the padding
  const void* x;               // [N, H, W, C], contiguous
  const float *scale, *shift;  // [channels]
  void* out;                   // bytes [N, H + 2 padding, W + 2 padding, C]
};

struct RgbToLArgs {
  Element element;  // of the result; pixels are of the same type or bytes
  bool bytes;
  int64_t images, channels;  // 1 or 3 channels
  int64_t pixels;            // H * W
  const void* image;         // [N, C, H, W], contiguous
  void* lightness;           // out [N, 1, H, W], contiguous
};

struct LabToRgbArgs {
  Element element;  // kFloat32 or kFloat64
  bool bytes;       // of the result
  int64_t images, rows, columns, ab_rows, ab_columns;
  const void* lightness;  // [N, 1, H, W], contiguous
  const void* ab;         // [N, 2, h, w], contiguous
  void* rgb;              // out [N, 3, H, W], contiguous
};

// The colors of an anchor but the first are chosen among its most probable bins.
constexpr int kTopBins = 10;
// Mean colors are rounded to so many parts of a unit of ab, so that distances to bins are exact.
constexpr double kColorParts = 1024;

}  // namespace disco_fast
