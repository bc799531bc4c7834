// The CPU kernels: raw pointers, strides and ranges, no torch header.
//
// kernels.cpp is compiled once per instruction set; `best_kernels` picks the fastest one that this
// processor has. A range function does the work items begin..end-1 and may run beside others of the
// same call: the tensor layer spreads the items over torch's thread pool. Sums never cross items,
// so results do not depend on the threads.
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
  int64_t cells() const { return rows * columns; }
};

// Pixel tensors are of type `element`, superpixel tensors of the wide type: double for kFloat64,
// else float. Layouts that the vector loops know: columns adjacent ("planar") or channels adjacent
// ("interleaved").
struct AggregateArgs {
  Element element;
  Grid grid;
  int64_t channels;
  View features;     // [N, C, H, W], planar or interleaved
  View association;  // [N, 9, H, W], any strides
  bool normalize;    // divide the sums by (weight + 1e-8), as SP-Pooling does
  void* partial;     // scratch [N, cells, 9, C + 1], wide
  void* sums;        // out [N, C, rows, columns], wide, contiguous
  void* weight;      // out [N, 1, rows, columns], wide, contiguous
};

struct DiffuseArgs {
  Element element;
  Grid grid;
  int64_t channels;
  View tokens;       // [N, C, rows, columns], wide, any strides
  View association;  // [N, 9, H, W], any strides
  View features;     // out [N, C, H, W], planar or interleaved
};

struct CorrelateArgs {
  Element element;
  Grid grid;
  int64_t channels;
  View features;      // [N, C, H, W], planar or interleaved
  View tokens;        // [N, C, rows, columns], wide, any strides
  View offset;        // [N, 1, rows, columns], wide, any strides; data may be null
  void* association;  // out [N, 9, H, W], element, contiguous
};

struct SizeArgs {
  Element element;
  Grid grid;
  View association;  // [N, 9, H, W], any strides
  int32_t* wins;     // scratch [N, cells, 9]
  void* size;        // out [N, 1, rows, columns], wide, contiguous
};

struct KMeansArgs {
  Element element;  // kFloat32 or kFloat64
  int64_t points, dims, clusters;
  int64_t max_iter;
  double tol;
  const void* data;     // [N, P, D], contiguous
  const int64_t* init;  // [N, K], each in 0..P-1
  int64_t* labels;      // out [N, P]
  void* centers;        // out [N, K, D]
  int64_t* iterations;  // out [N]
};

struct KMeansInitArgs {
  Element element;  // kFloat32 or kFloat64
  int64_t points, dims, clusters;
  int64_t seed;
  bool plus_plus;
  const void* data;  // [N, P, D], contiguous
  int64_t* init;     // out [N, K]
};

struct SelectArgs {
  Element element;  // of the sizes: kFloat32 or kFloat64
  int64_t points, clusters;
  const int64_t* labels;  // [N, P]
  const void* sizes;      // [N, P]
  int64_t* anchors;       // out [N, K]
};

struct LightnessArgs {
  Element element;  // of the result; pixels are of the same type or bytes
  bool bytes;
  int64_t channels;   // 1 or 3
  int64_t pixels;     // H * W
  const void* image;  // [N, C, H, W], contiguous
  void* lightness;    // out [N, 1, H, W], contiguous
};

struct RgbArgs {
  Element element;  // kFloat32 or kFloat64
  bool bytes;       // of the result
  int64_t rows, columns, ab_rows, ab_columns;
  const void* lightness;  // [N, 1, H, W], contiguous
  const void* ab;         // [N, 2, h, w], contiguous
  void* rgb;              // out [N, 3, H, W], contiguous
};

struct Kernels {
  const char* name;
  // Items are cells of all images (N * cells), except where said.
  void (*aggregate_cells)(const AggregateArgs&, int64_t begin, int64_t end);  // fills `partial`
  void (*gather_cells)(const AggregateArgs&, int64_t begin, int64_t end);     // after all of them
  void (*diffuse_cells)(const DiffuseArgs&, int64_t begin, int64_t end);
  void (*correlate_cells)(const CorrelateArgs&, int64_t begin, int64_t end);
  void (*count_wins)(const SizeArgs&, int64_t begin, int64_t end);       // fills `wins`
  void (*gather_wins)(const SizeArgs&, int64_t begin, int64_t end);      // after all of them
  void (*kmeans_images)(const KMeansArgs&, int64_t begin, int64_t end);  // items: images
  void (*kmeans_init_images)(const KMeansInitArgs&, int64_t begin, int64_t end);  // items: images
  void (*select_images)(const SelectArgs&, int64_t begin, int64_t end);           // items: images
  void (*lightness_pixels)(const LightnessArgs&, int64_t begin, int64_t end);  // items: N * pixels
  void (*rgb_rows)(const RgbArgs&, int64_t begin, int64_t end);                // items: N * rows
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
