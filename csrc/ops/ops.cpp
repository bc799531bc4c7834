// The CPU half of the ops: checks, allocation, threads. Schemas stand in disco_fast/ops.py.
#include <string>
#include <tuple>

#include "tensor_util.h"

namespace disco_fast {
namespace {

void check_features(const Tensor& features, const Tensor& association, const char* op) {
  DISCO_FAST_CHECK(features.dim() == 4 && features.size(0) == association.size(0) &&
                       features.size(2) == association.size(2) &&
                       features.size(3) == association.size(3),
                   op, ": features must be [N,C,H,W] with N, H, W of the association");
  DISCO_FAST_CHECK(features.scalar_type() == association.scalar_type(), op,
                   ": features and association must have one dtype");
}

void check_tokens(const Tensor& tokens, const Grid& grid, ScalarType type, const char* op) {
  DISCO_FAST_CHECK(tokens.dim() == 4 && tokens.size(0) == grid.images &&
                       tokens.size(2) == grid.rows && tokens.size(3) == grid.columns,
                   op, ": tokens must be [N,C,h,w] with N, h, w of the grid");
  DISCO_FAST_CHECK(tokens.scalar_type() == type, op,
                   ": tokens must be fp64 for fp64 pixels and else fp32");
}

// Measured at 64 channels, cells of 16 x 16: some 5 us a cell, in proportion to its channels and
// area.
int64_t cell_cost(const Grid& grid, int64_t channels) {
  return grid.cell * grid.cell * channels / 4;
}

std::tuple<Tensor, Tensor> aggregate(const Tensor& features, const Tensor& association,
                                     int64_t cell_size, bool normalize, const char* op) {
  const Grid grid = grid_of(association, cell_size, op);
  check_features(features, association, op);
  const Tensor input = readable(features);
  const int64_t channels = input.size(1);
  const ScalarType wide = wide_type(features);
  const Tensor sums = new_tensor(features, {grid.images, channels, grid.rows, grid.columns}, wide);
  const Tensor weight = new_tensor(features, {grid.images, 1, grid.rows, grid.columns}, wide);
  const Tensor partial = new_tensor(features, {grid.images, grid.cells(), 9, channels + 1}, wide);
  const AggregateArgs args = {element_of(input),
                              grid,
                              channels,
                              view_of(input),
                              view_of(association),
                              normalize,
                              partial.mutable_data_ptr(),
                              sums.mutable_data_ptr(),
                              weight.mutable_data_ptr()};
  const Kernels& kernels = best_kernels();
  const int64_t cells = grid.images * grid.cells();
  in_parallel(cells, cell_cost(grid, channels),
              [&](int64_t begin, int64_t end) { kernels.aggregate_cells(args, begin, end); });
  in_parallel(cells, 9 * channels / 8,
              [&](int64_t begin, int64_t end) { kernels.gather_cells(args, begin, end); });
  return {sums, weight};
}

std::tuple<Tensor, Tensor> sp_pool(const Tensor& features, const Tensor& association,
                                   int64_t cell_size) {
  return aggregate(features, association, cell_size, true, "sp_pool");
}

std::tuple<Tensor, Tensor> sp_aggregate(const Tensor& features, const Tensor& association,
                                        int64_t cell_size) {
  return aggregate(features, association, cell_size, false, "sp_aggregate");
}

bool is_channels_last(const Tensor& t) {
  const int64_t c = t.size(1), h = t.size(2), w = t.size(3);
  const bool last = t.stride(1) == 1 && t.stride(3) == c && t.stride(2) == w * c &&
                    (t.size(0) == 1 || t.stride(0) == h * w * c);
  return last && !t.is_contiguous();
}

Tensor sp_diffuse(const Tensor& tokens, const Tensor& association, int64_t cell_size) {
  const Grid grid = grid_of(association, cell_size, "sp_diffuse");
  check_tokens(tokens, grid, wide_type(association), "sp_diffuse");
  const int64_t channels = tokens.size(1);
  const auto format = is_channels_last(association) ? torch::headeronly::MemoryFormat::ChannelsLast
                                                    : torch::headeronly::MemoryFormat::Contiguous;
  const Tensor features = torch::stable::empty(
      {grid.images, channels, association.size(2), association.size(3)}, association.scalar_type(),
      std::nullopt, association.device(), std::nullopt, format);
  View out = view_of(features);
  out.data = features.mutable_data_ptr();
  const DiffuseArgs args = {element_of(association), grid, channels, view_of(tokens),
                            view_of(association),    out};
  in_parallel(grid.images * grid.cells(), cell_cost(grid, channels),
              [&](int64_t begin, int64_t end) { best_kernels().diffuse_cells(args, begin, end); });
  return features;
}

Tensor sp_correlate(const Tensor& features, const Tensor& tokens,
                    const std::optional<Tensor>& offset, int64_t cell_size) {
  DISCO_FAST_CHECK(features.dim() == 4 && cell_size >= 1 && features.size(2) % cell_size == 0 &&
                       features.size(3) % cell_size == 0,
                   "sp_correlate: features must be [N,C,H,W], H and W multiples of cell_size");
  const Tensor input = readable(features);
  const int64_t height = input.size(2), width = input.size(3);
  const Grid grid = {input.size(0), height / cell_size, width / cell_size, cell_size};
  check_tokens(tokens, grid, wide_type(features), "sp_correlate");
  DISCO_FAST_CHECK(tokens.size(1) == input.size(1), "sp_correlate: tokens need the features' C");
  View offset_view = {};
  if (offset) {
    check_tokens(*offset, grid, wide_type(features), "sp_correlate offset");
    offset_view = view_of(*offset);
  }
  const Tensor products =
      new_tensor(features, {grid.images, 9, height, width}, features.scalar_type());
  const CorrelateArgs args = {
      element_of(input),          grid, input.size(1), view_of(input), view_of(tokens), offset_view,
      products.mutable_data_ptr()};
  in_parallel(
      grid.images * grid.cells(), cell_cost(grid, args.channels),
      [&](int64_t begin, int64_t end) { best_kernels().correlate_cells(args, begin, end); });
  return products;
}

Tensor superpixel_size(const Tensor& association, int64_t cell_size) {
  const Grid grid = grid_of(association, cell_size, "superpixel_size");
  const Tensor wins = new_tensor(association, {grid.images, grid.cells(), 9}, ScalarType::Int);
  const Tensor size =
      new_tensor(association, {grid.images, 1, grid.rows, grid.columns}, wide_type(association));
  const SizeArgs args = {element_of(association), grid, view_of(association),
                         static_cast<int32_t*>(wins.mutable_data_ptr()), size.mutable_data_ptr()};
  const Kernels& kernels = best_kernels();
  const int64_t cells = grid.images * grid.cells();
  in_parallel(cells, 10 * cell_size * cell_size,
              [&](int64_t begin, int64_t end) { kernels.count_wins(args, begin, end); });
  in_parallel(cells, 20,
              [&](int64_t begin, int64_t end) { kernels.gather_wins(args, begin, end); });
  return size;
}

void check_points(const Tensor& points, const char* op) {
  DISCO_FAST_CHECK(points.dim() == 3 && points.numel() > 0, op, ": points must be [N,P,D]");
  DISCO_FAST_CHECK(points.element_size() >= 4, op, ": points must be fp32 or fp64");
}

std::tuple<Tensor, Tensor, Tensor> kmeans(const Tensor& points, const Tensor& init,
                                          int64_t max_iter, double tol) {
  check_points(points, "kmeans");
  const int64_t n = points.size(0), count = points.size(1), dims = points.size(2);
  DISCO_FAST_CHECK(init.dim() == 2 && init.size(0) == n && init.size(1) >= 1 &&
                       init.scalar_type() == ScalarType::Long && max_iter >= 1,
                   "kmeans: init must be int64 [N,K], max_iter at least 1");
  const int64_t clusters = init.size(1);
  const Tensor data = torch::stable::contiguous(points), start = torch::stable::contiguous(init);
  const int64_t* first = static_cast<const int64_t*>(start.const_data_ptr());
  for (int64_t i = 0; i < n * clusters; ++i) {
    DISCO_FAST_CHECK(first[i] >= 0 && first[i] < count, "kmeans: init must be within 0..",
                     count - 1, ", got ", first[i]);
  }
  const Tensor labels = new_tensor(points, {n, count}, ScalarType::Long);
  const Tensor centers = new_tensor(points, {n, clusters, dims}, points.scalar_type());
  const Tensor iterations = new_tensor(points, {n}, ScalarType::Long);
  const KMeansArgs args = {element_of(data),
                           count,
                           dims,
                           clusters,
                           max_iter,
                           tol,
                           data.const_data_ptr(),
                           first,
                           static_cast<int64_t*>(labels.mutable_data_ptr()),
                           centers.mutable_data_ptr(),
                           static_cast<int64_t*>(iterations.mutable_data_ptr())};
  in_parallel(n, count * dims * clusters,
              [&](int64_t begin, int64_t end) { best_kernels().kmeans_images(args, begin, end); });
  return {labels, centers, iterations};
}

Tensor kmeans_init(const Tensor& points, int64_t n_clusters, int64_t seed,
                   const std::string& method) {
  check_points(points, "kmeans_init");
  const int64_t n = points.size(0), count = points.size(1), dims = points.size(2);
  DISCO_FAST_CHECK(n_clusters >= 1 && n_clusters <= count && count < (int64_t(1) << 32),
                   "kmeans_init: n_clusters must be in 1..P");
  DISCO_FAST_CHECK(method == "random" || method == "k-means++",
                   "kmeans_init: method must be 'random' or 'k-means++', got ", method);
  const Tensor data = torch::stable::contiguous(points);
  const Tensor init = new_tensor(points, {n, n_clusters}, ScalarType::Long);
  const KMeansInitArgs args = {element_of(data),
                               count,
                               dims,
                               n_clusters,
                               seed,
                               method == "k-means++",
                               data.const_data_ptr(),
                               static_cast<int64_t*>(init.mutable_data_ptr())};
  in_parallel(n, count * (dims + 20) * n_clusters, [&](int64_t begin, int64_t end) {
    best_kernels().kmeans_init_images(args, begin, end);
  });
  return init;
}

Tensor rgb_to_l(const Tensor& image) {
  const bool bytes = image.scalar_type() == ScalarType::Byte;
  DISCO_FAST_CHECK(image.dim() == 4 && (image.size(1) == 1 || image.size(1) == 3),
                   "rgb_to_l: image must be [N,1 or 3,H,W]");
  DISCO_FAST_CHECK(bytes || image.element_size() >= 4, "rgb_to_l: image must be uint8, fp32, fp64");
  const Tensor input = torch::stable::contiguous(image);
  const int64_t n = image.size(0), height = image.size(2), width = image.size(3);
  const ScalarType type = bytes ? ScalarType::Float : image.scalar_type();
  const Tensor lightness = new_tensor(image, {n, 1, height, width}, type);
  const LightnessArgs args = {element_of(lightness),  bytes,
                              image.size(1),          height * width,
                              input.const_data_ptr(), lightness.mutable_data_ptr()};
  in_parallel(n * height * width, 2, [&](int64_t begin, int64_t end) {
    best_kernels().lightness_pixels(args, begin, end);
  });
  return lightness;
}

Tensor lab_to_rgb(const Tensor& lightness, const Tensor& ab, bool to_uint8) {
  DISCO_FAST_CHECK(lightness.dim() == 4 && lightness.size(1) == 1 && lightness.element_size() >= 4,
                   "lab_to_rgb: lightness must be [N,1,H,W] in fp32 or fp64");
  DISCO_FAST_CHECK(ab.dim() == 4 && ab.size(1) == 2 && ab.size(0) == lightness.size(0) &&
                       ab.scalar_type() == lightness.scalar_type() && ab.numel() > 0,
                   "lab_to_rgb: ab must be [N,2,h,w] in the dtype of lightness");
  const Tensor l = torch::stable::contiguous(lightness), chroma = torch::stable::contiguous(ab);
  const int64_t n = l.size(0), height = l.size(2), width = l.size(3);
  const ScalarType type = to_uint8 ? ScalarType::Byte : l.scalar_type();
  const Tensor rgb = new_tensor(lightness, {n, 3, height, width}, type);
  const RgbArgs args = {element_of(l),
                        to_uint8,
                        height,
                        width,
                        chroma.size(2),
                        chroma.size(3),
                        l.const_data_ptr(),
                        chroma.const_data_ptr(),
                        rgb.mutable_data_ptr()};
  in_parallel(n * height, 5 * width,
              [&](int64_t begin, int64_t end) { best_kernels().rgb_rows(args, begin, end); });
  return rgb;
}

Tensor select_anchors(const Tensor& labels, const Tensor& sizes, int64_t n_clusters) {
  DISCO_FAST_CHECK(labels.dim() == 2 && labels.scalar_type() == ScalarType::Long &&
                       sizes.dim() == 2 && sizes.size(0) == labels.size(0) &&
                       sizes.size(1) == labels.size(1) && labels.numel() > 0 && n_clusters >= 1,
                   "select_anchors: labels int64 [N,P], sizes [N,P], n_clusters at least 1");
  DISCO_FAST_CHECK(sizes.element_size() >= 4, "select_anchors: sizes must be fp32 or fp64");
  const Tensor member = torch::stable::contiguous(labels), share = torch::stable::contiguous(sizes);
  const int64_t n = labels.size(0), count = labels.size(1);
  const Tensor anchors = new_tensor(labels, {n, n_clusters}, ScalarType::Long);
  const SelectArgs args = {element_of(share),
                           count,
                           n_clusters,
                           static_cast<const int64_t*>(member.const_data_ptr()),
                           share.const_data_ptr(),
                           static_cast<int64_t*>(anchors.mutable_data_ptr())};
  in_parallel(n, count * n_clusters,
              [&](int64_t begin, int64_t end) { best_kernels().select_images(args, begin, end); });
  return anchors;
}

std::string instruction_set() { return best_kernels().name; }

}  // namespace
}  // namespace disco_fast

STABLE_TORCH_LIBRARY_IMPL(disco_fast, CPU, m) {
  using namespace disco_fast;
  m.impl("sp_pool", TORCH_BOX(&sp_pool));
  m.impl("sp_aggregate", TORCH_BOX(&sp_aggregate));
  m.impl("sp_diffuse", TORCH_BOX(&sp_diffuse));
  m.impl("sp_correlate", TORCH_BOX(&sp_correlate));
  m.impl("superpixel_size", TORCH_BOX(&superpixel_size));
  m.impl("kmeans", TORCH_BOX(&kmeans));
  m.impl("kmeans_init", TORCH_BOX(&kmeans_init));
  m.impl("select_anchors", TORCH_BOX(&select_anchors));
  m.impl("rgb_to_l", TORCH_BOX(&rgb_to_l));
  m.impl("lab_to_rgb", TORCH_BOX(&lab_to_rgb));
}

STABLE_TORCH_LIBRARY_IMPL(disco_fast, CompositeExplicitAutograd, m) {
  m.impl("_instruction_set", TORCH_BOX(&disco_fast::instruction_set));
}
