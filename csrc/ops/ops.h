// The ops: checks, allocation, and the arguments of the kernels, for any backend. Schemas stand in
// disco_fast/ops/.
//
// A backend runs the kernels: `run(args, tensor)` for each struct of args.h, where `tensor` is on
// the device of all the others; `readable(features)`, in a layout that its kernels know;
// `check_init`, as far as it can look at indices; `workspace(args, like)` for K-Means,
// `init_scratch(points)` for its seeding and `encoder_scratch(args, like)`.
#pragma once

#include <string>
#include <tuple>

#include "tensor_util.h"

namespace disco_fast {

template <class Backend>
class Ops {
 public:
  static std::tuple<Tensor, Tensor> sp_pool(const Tensor& features, const Tensor& association,
                                            int64_t cell_size) {
    const auto [sums, weight, size] =
        aggregate("sp_pool", features, association, cell_size, true, false);
    return {sums, weight};
  }

  static std::tuple<Tensor, Tensor, Tensor> sp_pool_with_size(const Tensor& features,
                                                              const Tensor& association,
                                                              int64_t cell_size) {
    return aggregate("sp_pool_with_size", features, association, cell_size, true, true);
  }

  static std::tuple<Tensor, Tensor> sp_aggregate(const Tensor& features, const Tensor& association,
                                                 int64_t cell_size) {
    const auto [sums, weight, size] =
        aggregate("sp_aggregate", features, association, cell_size, false, false);
    return {sums, weight};
  }

  static Tensor superpixel_size(const Tensor& association, int64_t cell_size) {
    return std::get<2>(
        aggregate("superpixel_size", std::nullopt, association, cell_size, false, true));
  }

  static Tensor sp_diffuse(const Tensor& tokens, const Tensor& association, int64_t cell_size,
                           const std::optional<Tensor>& lead, int64_t lead_channels) {
    check_one_device("sp_diffuse", association, tokens, lead ? *lead : association);
    const Grid grid = grid_of(association, cell_size, "sp_diffuse");
    check_tokens(tokens, grid, wide_type(association), "sp_diffuse");
    if (lead) {
      check_features(*lead, association, "sp_diffuse lead");
      DISCO_FAST_CHECK(lead->size(1) == 1, "sp_diffuse: lead must have one channel");
      DISCO_FAST_CHECK(lead_channels >= 1, "sp_diffuse: lead_channels must be at least 1");
    }
    const int64_t channels = tokens.size(1), in_front = lead ? lead_channels : 0;
    const auto format = is_channels_last(association)
                            ? torch::headeronly::MemoryFormat::ChannelsLast
                            : torch::headeronly::MemoryFormat::Contiguous;
    const Tensor features = torch::stable::empty(
        {grid.images, in_front + channels, association.size(2), association.size(3)},
        association.scalar_type(), std::nullopt, association.device(), std::nullopt, format);
    View out = view_of(features);
    out.data = features.mutable_data_ptr();
    Backend::run(SpDiffuseArgs{element_of(association), grid, channels, in_front, view_of(tokens),
                               view_of(association), lead ? view_of(*lead) : View{}, out},
                 association);
    return features;
  }

  static Tensor sp_correlate(const Tensor& features, const Tensor& tokens,
                             const std::optional<Tensor>& offset, int64_t cell_size) {
    check_one_device("sp_correlate", features, tokens, offset ? *offset : tokens);
    DISCO_FAST_CHECK(features.dim() == 4 && cell_size >= 1 && features.size(2) % cell_size == 0 &&
                         features.size(3) % cell_size == 0,
                     "sp_correlate: features must be [N,C,H,W], H and W multiples of cell_size");
    const Tensor input = Backend::readable(features);
    const int64_t height = input.size(2), width = input.size(3);
    const Grid grid = {input.size(0), height / cell_size, width / cell_size, cell_size};
    check_tokens(tokens, grid, wide_type(features), "sp_correlate");
    DISCO_FAST_CHECK(tokens.size(1) == input.size(1), "sp_correlate: tokens need the features' C");
    if (offset) check_tokens(*offset, grid, wide_type(features), "sp_correlate offset");
    const Tensor products =
        new_tensor(features, {grid.images, 9, height, width}, features.scalar_type());
    Backend::run(
        SpCorrelateArgs{element_of(input), grid, input.size(1), view_of(input), view_of(tokens),
                        offset ? view_of(*offset) : View{}, products.mutable_data_ptr()},
        input);
    return products;
  }

  static std::tuple<Tensor, Tensor, Tensor> kmeans(const Tensor& points, const Tensor& init,
                                                   int64_t max_iter, double tol) {
    check_points(points, "kmeans");
    check_one_device("kmeans", points, init);
    const int64_t n = points.size(0), count = points.size(1), dims = points.size(2);
    DISCO_FAST_CHECK(init.dim() == 2 && init.size(0) == n && init.size(1) >= 1 &&
                         init.scalar_type() == ScalarType::Long && max_iter >= 1,
                     "kmeans: init must be int64 [N,K], max_iter at least 1");
    const int64_t clusters = init.size(1);
    const Tensor input = torch::stable::contiguous(points);
    const Tensor start = torch::stable::contiguous(init);
    Backend::check_init(start, count);
    const Tensor labels = new_tensor(points, {n, count}, ScalarType::Long);
    const Tensor centers = new_tensor(points, {n, clusters, dims}, points.scalar_type());
    const Tensor iterations = new_tensor(points, {n}, ScalarType::Long);
    KMeansArgs args = {};
    args.element = element_of(input);
    args.images = n;
    args.points = count;
    args.dims = dims;
    args.clusters = clusters;
    args.max_iter = max_iter;
    args.tol = tol;
    args.data = input.const_data_ptr();
    args.init = static_cast<const int64_t*>(start.const_data_ptr());
    args.labels = data<int64_t>(labels);
    args.centers = centers.mutable_data_ptr();
    args.iterations = data<int64_t>(iterations);
    const std::optional<Tensor> workspace = Backend::workspace(args, input);
    if (workspace) args.workspace = workspace->mutable_data_ptr();
    Backend::run(args, input);
    return {labels, centers, iterations};
  }

  static Tensor kmeans_init(const Tensor& points, int64_t n_clusters, int64_t seed,
                            const std::string& method) {
    check_points(points, "kmeans_init");
    const int64_t n = points.size(0), count = points.size(1);
    DISCO_FAST_CHECK(n_clusters >= 1 && n_clusters <= count && count < (int64_t(1) << 32),
                     "kmeans_init: n_clusters must be in 1..P");
    DISCO_FAST_CHECK(method == "random" || method == "k-means++",
                     "kmeans_init: method must be 'random' or 'k-means++', got ", method);
    const Tensor input = torch::stable::contiguous(points);
    const Tensor init = new_tensor(points, {n, n_clusters}, ScalarType::Long);
    const std::optional<Tensor> nearest = Backend::init_scratch(input);
    Backend::run(
        KMeansInitArgs{element_of(input), n, count, points.size(2), n_clusters, seed,
                       method == "k-means++", input.const_data_ptr(),
                       nearest ? nearest->mutable_data_ptr() : nullptr, data<int64_t>(init)},
        input);
    return init;
  }

  static Tensor select_anchors(const Tensor& labels, const Tensor& sizes, int64_t n_clusters) {
    check_one_device("select_anchors", labels, sizes);
    AnchorArgs args = {};
    const Tensor member = torch::stable::contiguous(labels);
    const Tensor share = torch::stable::contiguous(sizes);
    set_members(args, member, share, n_clusters, "select_anchors");
    const Tensor anchors = new_tensor(labels, {args.images, n_clusters}, ScalarType::Long);
    args.anchors = data<int64_t>(anchors);
    Backend::run(args, member);
    return anchors;
  }

  static Tensor anchor_bins(const Tensor& logits, const Tensor& anchor_index,
                            const Tensor& bin_centers, int64_t variants,
                            const std::optional<Tensor>& offset, double temperature) {
    check_one_device("anchor_bins", logits, anchor_index, bin_centers, offset ? *offset : logits);
    DISCO_FAST_CHECK(anchor_index.dim() == 2 && anchor_index.scalar_type() == ScalarType::Long,
                     "anchor_bins: anchor_index must be int64 [N,K]");
    AnchorArgs args = {};
    const Tensor rows = torch::stable::contiguous(logits);
    const Tensor centers = torch::stable::contiguous(bin_centers);
    const Tensor index = torch::stable::contiguous(anchor_index);
    const std::optional<Tensor> added = contiguous(offset);
    args.element = element_of(rows);
    args.images = index.size(0);
    args.clusters = index.size(1);
    args.anchors = data<int64_t>(index);
    const Tensor colors =
        set_logits(args, rows, centers, variants, added, temperature, "anchor_bins");
    Backend::check_init(index, args.points);
    Backend::run(args, rows);
    return colors;
  }

  static std::tuple<Tensor, Tensor> choose_anchors(const Tensor& labels, const Tensor& sizes,
                                                   const Tensor& logits, const Tensor& bin_centers,
                                                   int64_t n_clusters, int64_t variants,
                                                   const std::optional<Tensor>& offset,
                                                   double temperature) {
    check_one_device("choose_anchors", labels, sizes, logits, bin_centers,
                     offset ? *offset : logits);
    AnchorArgs args = {};
    const Tensor member = torch::stable::contiguous(labels);
    const Tensor share = torch::stable::contiguous(sizes);
    const Tensor rows = torch::stable::contiguous(logits);
    const Tensor centers = torch::stable::contiguous(bin_centers);
    const std::optional<Tensor> added = contiguous(offset);
    set_members(args, member, share, n_clusters, "choose_anchors");
    DISCO_FAST_CHECK(rows.scalar_type() == share.scalar_type() && rows.size(1) == args.points,
                     "choose_anchors: logits must be [N,P,bins] in the dtype of sizes");
    const Tensor colors =
        set_logits(args, rows, centers, variants, added, temperature, "choose_anchors");
    const Tensor anchors = new_tensor(labels, {args.images, n_clusters}, ScalarType::Long);
    args.anchors = data<int64_t>(anchors);
    Backend::run(args, member);
    return {anchors, colors};
  }

  static Tensor encoder(const Tensor& tokens, const Tensor& position, const Tensor& weights) {
    check_one_device("encoder", tokens, position, weights);
    DISCO_FAST_CHECK(tokens.dim() == 3 && tokens.size(2) == kTokenDim && tokens.numel() > 0,
                     "encoder: tokens must be [N,P,", kTokenDim, "]");
    DISCO_FAST_CHECK(position.dim() == 3 && position.size(0) == 1 &&
                         position.size(1) == tokens.size(1) && position.size(2) == kTokenDim,
                     "encoder: position must be [1,P,", kTokenDim, "]");
    DISCO_FAST_CHECK(
        weights.dim() == 2 && weights.size(0) > 0 && weights.size(1) == EncoderLayer::kSize,
        "encoder: weights must be [L,", EncoderLayer::kSize, "], L at least 1");
    DISCO_FAST_CHECK(tokens.scalar_type() == ScalarType::Float &&
                         position.scalar_type() == ScalarType::Float &&
                         weights.scalar_type() == ScalarType::Float,
                     "encoder: tokens, position and weights must be fp32");
    const Tensor input = torch::stable::contiguous(tokens);
    const Tensor place = torch::stable::contiguous(position);
    const Tensor layers = aligned(torch::stable::contiguous(weights));
    const Tensor result =
        new_tensor(input, {input.size(0), input.size(1), input.size(2)}, ScalarType::Float);
    EncoderArgs args = {input.size(0),
                        input.size(1),
                        layers.size(0),
                        static_cast<const float*>(input.const_data_ptr()),
                        static_cast<const float*>(place.const_data_ptr()),
                        static_cast<const float*>(layers.const_data_ptr()),
                        nullptr,
                        data<float>(result)};
    const Tensor workspace = Backend::encoder_scratch(args, input);
    args.workspace = static_cast<float*>(workspace.mutable_data_ptr());
    Backend::run(args, input);
    return result;
  }

  static Tensor bias_act(const Tensor& x, const std::optional<Tensor>& bias,
                         const std::optional<Tensor>& residual, double slope,
                         const std::optional<Tensor>& scale, const std::optional<Tensor>& shift,
                         const std::optional<Tensor>& lead) {
    const auto here = [&](const std::optional<Tensor>& other) { return other ? *other : x; };
    check_one_device("bias_act", x, here(bias), here(residual), here(scale), here(shift),
                     here(lead));
    DISCO_FAST_CHECK(x.dim() == 4, "bias_act: x must be [N,C,H,W]");
    const int64_t n = x.size(0), channels = x.size(1), pixels = x.size(2) * x.size(3);
    const bool last = is_channels_last(x);
    const auto format = last ? torch::headeronly::MemoryFormat::ChannelsLast
                             : torch::headeronly::MemoryFormat::Contiguous;
    const Tensor input = torch::stable::contiguous(x, format);
    const auto like_x = [&](const std::optional<Tensor>& tensor, const char* name,
                            bool channels_too) {
      if (!tensor) return tensor;
      bool equal = tensor->dim() == 4 && tensor->scalar_type() == x.scalar_type();
      for (int i = 0; equal && i < 4; ++i) {
        equal = tensor->size(i) == x.size(i) || (i == 1 && !channels_too);
      }
      DISCO_FAST_CHECK(equal, "bias_act: ", name, " must have the shape and dtype of x",
                       channels_too ? "" : ", but for its channels");
      return std::optional<Tensor>(torch::stable::contiguous(*tensor, format));
    };
    const std::optional<Tensor> other = like_x(residual, "residual", true),
                                first = like_x(lead, "lead", false);
    const int64_t lead_channels = first ? first->size(1) : 0;
    const auto row = [&](const std::optional<Tensor>& tensor, const char* name) {
      return channel_row("bias_act", name, tensor, channels, x);
    };
    const std::optional<Tensor> b = row(bias, "bias"), s = row(scale, "scale"),
                                t = row(shift, "shift");
    const Tensor out =
        torch::stable::empty({n, lead_channels + channels, x.size(2), x.size(3)}, x.scalar_type(),
                             std::nullopt, x.device(), std::nullopt, format);
    BiasActArgs args = {};
    args.element = element_of(x);
    args.rows = last ? n * pixels : n;
    args.channels = channels;
    args.inner = last ? 1 : pixels;
    args.lead_channels = lead_channels;
    args.slope = slope;
    args.x = input.const_data_ptr();
    args.residual = address(other);
    args.lead = address(first);
    args.bias = address(b);
    args.scale = address(s);
    args.shift = address(t);
    args.out = out.mutable_data_ptr();
    Backend::run(args, input);
    return out;
  }

  static Tensor rgb_to_l(const Tensor& image) {
    const bool bytes = image.scalar_type() == ScalarType::Byte;
    DISCO_FAST_CHECK(image.dim() == 4 && (image.size(1) == 1 || image.size(1) == 3),
                     "rgb_to_l: image must be [N,1 or 3,H,W]");
    DISCO_FAST_CHECK(bytes || image.element_size() >= 4,
                     "rgb_to_l: image must be uint8, fp32, fp64");
    const Tensor input = torch::stable::contiguous(image);
    const int64_t n = image.size(0), height = image.size(2), width = image.size(3);
    const ScalarType type = bytes ? ScalarType::Float : image.scalar_type();
    const Tensor lightness = new_tensor(image, {n, 1, height, width}, type);
    Backend::run(RgbToLArgs{element_of(lightness), bytes, n, image.size(1), height * width,
                            input.const_data_ptr(), lightness.mutable_data_ptr()},
                 input);
    return lightness;
  }

  static Tensor lab_to_rgb(const Tensor& lightness, const Tensor& ab, bool to_uint8) {
    check_one_device("lab_to_rgb", lightness, ab);
    DISCO_FAST_CHECK(
        lightness.dim() == 4 && lightness.size(1) == 1 && lightness.element_size() >= 4,
        "lab_to_rgb: lightness must be [N,1,H,W] in fp32 or fp64");
    DISCO_FAST_CHECK(ab.dim() == 4 && ab.size(1) == 2 && ab.size(0) == lightness.size(0) &&
                         ab.scalar_type() == lightness.scalar_type() && ab.numel() > 0,
                     "lab_to_rgb: ab must be [N,2,h,w] in the dtype of lightness");
    const Tensor l = torch::stable::contiguous(lightness), chroma = torch::stable::contiguous(ab);
    const int64_t n = l.size(0), height = l.size(2), width = l.size(3);
    const ScalarType type = to_uint8 ? ScalarType::Byte : l.scalar_type();
    const Tensor rgb = new_tensor(lightness, {n, 3, height, width}, type);
    Backend::run(
        LabToRgbArgs{element_of(l), to_uint8, n, height, width, chroma.size(2), chroma.size(3),
                     l.const_data_ptr(), chroma.const_data_ptr(), rgb.mutable_data_ptr()},
        l);
    return rgb;
  }

  // Takes the device over for every op.
  template <class Library>
  static void register_all(Library& m) {
    m.impl("sp_pool", TORCH_BOX(&Ops::sp_pool));
    m.impl("sp_pool_with_size", TORCH_BOX(&Ops::sp_pool_with_size));
    m.impl("sp_aggregate", TORCH_BOX(&Ops::sp_aggregate));
    m.impl("sp_diffuse", TORCH_BOX(&Ops::sp_diffuse));
    m.impl("sp_correlate", TORCH_BOX(&Ops::sp_correlate));
    m.impl("superpixel_size", TORCH_BOX(&Ops::superpixel_size));
    m.impl("kmeans", TORCH_BOX(&Ops::kmeans));
    m.impl("kmeans_init", TORCH_BOX(&Ops::kmeans_init));
    m.impl("select_anchors", TORCH_BOX(&Ops::select_anchors));
    m.impl("anchor_bins", TORCH_BOX(&Ops::anchor_bins));
    m.impl("choose_anchors", TORCH_BOX(&Ops::choose_anchors));
    m.impl("encoder", TORCH_BOX(&Ops::encoder));
    m.impl("bias_act", TORCH_BOX(&Ops::bias_act));
    m.impl("rgb_to_l", TORCH_BOX(&Ops::rgb_to_l));
    m.impl("lab_to_rgb", TORCH_BOX(&Ops::lab_to_rgb));
  }

 private:
  static Grid grid_of(const Tensor& association, int64_t cell, const char* op) {
    DISCO_FAST_CHECK(association.dim() == 4 && association.size(1) == 9, op,
                     ": association must be [N,9,H,W]");
    DISCO_FAST_CHECK(
        cell >= 1 && association.size(2) % cell == 0 && association.size(3) % cell == 0, op,
        ": H and W must be multiples of cell_size");
    return {association.size(0), association.size(2) / cell, association.size(3) / cell, cell};
  }

  static void check_size(const Tensor& features, const Tensor& association, const char* op) {
    DISCO_FAST_CHECK(features.dim() == 4 && features.size(0) == association.size(0) &&
                         features.size(2) == association.size(2) &&
                         features.size(3) == association.size(3),
                     op, ": features must be [N,C,H,W] with N, H, W of the association");
  }

  static void check_pooled(const Tensor& features, const Tensor& association, const char* op) {
    check_size(features, association, op);
    const bool narrow =
        association.scalar_type() == ScalarType::Float && wide_type(features) == ScalarType::Float;
    DISCO_FAST_CHECK(narrow || features.scalar_type() == association.scalar_type(), op,
                     ": features must have the association's dtype, or 16 bits beside fp32");
  }

  static void check_features(const Tensor& features, const Tensor& association, const char* op) {
    check_size(features, association, op);
    DISCO_FAST_CHECK(features.scalar_type() == association.scalar_type(), op,
                     ": features and association must have one dtype");
  }

  static void check_tokens(const Tensor& tokens, const Grid& grid, ScalarType type,
                           const char* op) {
    DISCO_FAST_CHECK(tokens.dim() == 4 && tokens.size(0) == grid.images &&
                         tokens.size(2) == grid.rows && tokens.size(3) == grid.columns,
                     op, ": tokens must be [N,C,h,w] with N, h, w of the grid");
    DISCO_FAST_CHECK(tokens.scalar_type() == type, op,
                     ": tokens must be fp64 for fp64 pixels and else fp32");
  }

  static void check_points(const Tensor& points, const char* op) {
    DISCO_FAST_CHECK(points.dim() == 3 && points.numel() > 0, op, ": points must be [N,P,D]");
    DISCO_FAST_CHECK(points.element_size() >= 4, op, ": points must be fp32 or fp64");
  }

  // Sums, weights and, where asked for, sizes; without features only the latter two.
  static std::tuple<Tensor, Tensor, Tensor> aggregate(const char* op,
                                                      const std::optional<Tensor>& features,
                                                      const Tensor& association, int64_t cell_size,
                                                      bool normalize, bool with_size) {
    const Grid grid = grid_of(association, cell_size, op);
    SpPoolArgs args = {};
    std::optional<Tensor> input, wins;
    if (features) {
      check_one_device(op, association, *features);
      check_pooled(*features, association, op);
      input = Backend::readable(*features);
      args.channels = input->size(1);
      args.features = view_of(*input);
    }
    const ScalarType wide = wide_type(association);
    const auto on_grid = [&](int64_t channels) {
      return new_tensor(association, {grid.images, channels, grid.rows, grid.columns}, wide);
    };
    const Tensor sums = on_grid(args.channels), weight = on_grid(1), size = on_grid(with_size);
    const Tensor partial =
        new_tensor(association, {grid.images, grid.cells(), 9, args.channels + 1}, wide);
    if (with_size) {
      wins = new_tensor(association, {grid.images, grid.cells(), 9}, ScalarType::Int);
      args.wins = data<int32_t>(*wins);
      args.size = size.mutable_data_ptr();
    }
    args.element = element_of(association);
    args.features_element = features ? element_of(*features) : args.element;
    args.grid = grid;
    args.association = view_of(association);
    args.normalize = normalize;
    args.partial = partial.mutable_data_ptr();
    args.sums = sums.mutable_data_ptr();
    args.weight = weight.mutable_data_ptr();
    Backend::run(args, association);
    return {sums, weight, size};
  }

  static void set_members(AnchorArgs& args, const Tensor& labels, const Tensor& sizes,
                          int64_t n_clusters, const char* op) {
    DISCO_FAST_CHECK(labels.dim() == 2 && labels.scalar_type() == ScalarType::Long &&
                         sizes.dim() == 2 && sizes.size(0) == labels.size(0) &&
                         sizes.size(1) == labels.size(1) && labels.numel() > 0 && n_clusters >= 1,
                     op, ": labels int64 [N,P], sizes [N,P], n_clusters at least 1");
    DISCO_FAST_CHECK(sizes.element_size() >= 4, op, ": sizes must be fp32 or fp64");
    args.element = element_of(sizes);
    args.images = labels.size(0);
    args.points = labels.size(1);
    args.clusters = n_clusters;
    args.labels = static_cast<const int64_t*>(labels.const_data_ptr());
    args.sizes = sizes.const_data_ptr();
  }

  // Returns the place of the colors, [N, variants, K].
  static Tensor set_logits(AnchorArgs& args, const Tensor& logits, const Tensor& bin_centers,
                           int64_t variants, const std::optional<Tensor>& offset,
                           double temperature, const char* op) {
    DISCO_FAST_CHECK(logits.dim() == 3 && logits.size(0) == args.images &&
                         logits.element_size() >= 4 && logits.numel() > 0,
                     op, ": logits must be [N,P,bins] in fp32 or fp64");
    DISCO_FAST_CHECK(bin_centers.dim() == 2 && bin_centers.size(0) == logits.size(2) &&
                         bin_centers.size(1) == 2 && bin_centers.scalar_type() == ScalarType::Float,
                     op, ": bin_centers must be fp32 [bins,2]");
    DISCO_FAST_CHECK(variants >= 1 && variants <= 3, op, ": variants must be in 1..3");
    DISCO_FAST_CHECK(!offset || (offset->dim() == 1 && offset->size(0) == logits.size(2) &&
                                 offset->scalar_type() == logits.scalar_type()),
                     op, ": offset must be [bins] in the dtype of logits");
    DISCO_FAST_CHECK(temperature >= 0, op, ": temperature must be at least 0");
    args.offset = offset ? offset->const_data_ptr() : nullptr;
    args.temperature = temperature;
    args.points = logits.size(1);
    args.bins = logits.size(2);
    args.variants = variants;
    args.logits = logits.const_data_ptr();
    args.bin_centers = static_cast<const float*>(bin_centers.const_data_ptr());
    const Tensor colors =
        new_tensor(logits, {args.images, variants, args.clusters}, ScalarType::Long);
    args.colors = data<int64_t>(colors);
    return colors;
  }
};

}  // namespace disco_fast
