// The CPU half: the kernels of the best instruction set on torch's thread pool.
#include "../cpu/kernels.h"
#include "ops.h"

namespace disco_fast {
namespace {

// Runs items 0..count-1 on torch's thread pool; `cost` is one item's work in nanoseconds, roughly.
template <class Body>
void in_parallel(int64_t count, int64_t cost, const Body& body) {
  constexpr int64_t kWorthAThread = 20'000;  // below some 20 us, waking another thread costs more
  const int64_t grain = kWorthAThread / (cost > 0 ? cost : 1) + 1;
  torch::stable::parallel_for(0, count, grain, body);
}

// Measured at 64 channels, cells of 16 x 16: some 5 us a cell, in proportion to its channels and
// area.
int64_t cell_cost(const Grid& grid, int64_t channels) {
  return grid.cell * grid.cell * channels / 4;
}

struct CpuBackend {
  // In place where columns or channels are adjacent, else a contiguous copy.
  static Tensor readable(const Tensor& t) {
    const bool planar = t.stride(3) == 1, interleaved = t.stride(1) == 1;
    return planar || interleaved ? t : torch::stable::contiguous(t);
  }

  static void check_init(const Tensor& index, int64_t points) {
    const int64_t* first = static_cast<const int64_t*>(index.const_data_ptr());
    for (int64_t i = 0; i < index.numel(); ++i) {
      DISCO_FAST_CHECK(first[i] >= 0 && first[i] < points, "indices must be within 0..", points - 1,
                       ", got ", first[i]);
    }
  }

  static std::optional<Tensor> workspace(const KMeansArgs&, const Tensor&) { return std::nullopt; }
  static std::optional<Tensor> init_scratch(const Tensor&) { return std::nullopt; }
  static Tensor encoder_scratch(const EncoderArgs& args, const Tensor& like) {
    const int64_t tokens = args.images * encoder_blocks(args.count) * kEncoderBlock;
    return new_tensor(like, {tokens * kEncoderFloats}, ScalarType::Float);
  }

  static void run(const SpPoolArgs& args, const Tensor&) {
    const Kernels& kernels = best_kernels();
    const int64_t cells = args.grid.images * args.grid.cells();
    if (args.channels > 0) {
      in_parallel(cells, cell_cost(args.grid, args.channels),
                  [&](int64_t begin, int64_t end) { kernels.sp_pool_cells(args, begin, end); });
      in_parallel(cells, 9 * args.channels / 8, [&](int64_t begin, int64_t end) {
        kernels.sp_pool_gather_cells(args, begin, end);
      });
    }
    if (args.wins == nullptr) return;
    const SuperpixelSizeArgs size = {args.element, args.grid, args.association, args.wins,
                                     args.size};
    in_parallel(cells, 10 * args.grid.cell * args.grid.cell, [&](int64_t begin, int64_t end) {
      kernels.superpixel_size_count(size, begin, end);
    });
    in_parallel(cells, 20, [&](int64_t begin, int64_t end) {
      kernels.superpixel_size_gather(size, begin, end);
    });
  }

  static void run(const SpDiffuseArgs& args, const Tensor&) {
    in_parallel(
        args.grid.images * args.grid.cells(), cell_cost(args.grid, args.channels),
        [&](int64_t begin, int64_t end) { best_kernels().sp_diffuse_cells(args, begin, end); });
  }

  static void run(const SpCorrelateArgs& args, const Tensor&) {
    in_parallel(
        args.grid.images * args.grid.cells(), cell_cost(args.grid, args.channels),
        [&](int64_t begin, int64_t end) { best_kernels().sp_correlate_cells(args, begin, end); });
  }

  static void run(const KMeansArgs& args, const Tensor&) {
    in_parallel(
        args.images, args.points * args.dims * args.clusters,
        [&](int64_t begin, int64_t end) { best_kernels().kmeans_images(args, begin, end); });
  }

  static void run(const KMeansInitArgs& args, const Tensor&) {
    in_parallel(
        args.images, args.points * (args.dims + 20) * args.clusters,
        [&](int64_t begin, int64_t end) { best_kernels().kmeans_init_images(args, begin, end); });
  }

  static void run(const AnchorArgs& args, const Tensor&) {
    in_parallel(
        args.images, args.clusters * (args.points + 2 * args.bins),
        [&](int64_t begin, int64_t end) { best_kernels().anchor_images(args, begin, end); });
  }

  static void run(const EncoderArgs& args, const Tensor&) {
    // Some 30 multiplications and additions a nanosecond.
    const int64_t cost = kEncoderBlock * (EncoderLayer::kSize + 2 * kTokenDim * args.count) / 30;
    for (int64_t step = 0; step <= args.layers; ++step) {
      in_parallel(args.images * encoder_blocks(args.count), cost, [&](int64_t begin, int64_t end) {
        best_kernels().encode_blocks(args, step, begin, end);
      });
    }
  }

  static void run(const BiasActArgs& args, const Tensor&) {
    const bool last = args.inner == 1;
    in_parallel(
        last ? args.rows : args.rows * args.channels, (last ? args.channels : args.inner) / 4,
        [&](int64_t begin, int64_t end) { best_kernels().bias_act_rows(args, begin, end); });
  }

  static void run(const RgbToLArgs& args, const Tensor&) {
    in_parallel(args.images * args.pixels, 2, [&](int64_t begin, int64_t end) {
      best_kernels().rgb_to_l_pixels(args, begin, end);
    });
  }

  static void run(const LabToRgbArgs& args, const Tensor&) {
    in_parallel(args.images * args.rows, 5 * args.columns, [&](int64_t begin, int64_t end) {
      best_kernels().lab_to_rgb_rows(args, begin, end);
    });
  }
};

// On a CPU alone: no other device here has a convolution that takes its result.
Tensor quantize(const Tensor& x, double slope, const Tensor& scale, const Tensor& shift,
                int64_t padding, int64_t zero) {
  check_one_device("quantize", x, scale, shift);
  DISCO_FAST_CHECK(x.dim() == 4 && element_of(x) != Element::kFloat64,
                   "quantize: x must be [N,C,H,W] in fp32, fp16 or bf16");
  DISCO_FAST_CHECK(padding >= 0 && zero >= 0 && zero <= 255,
                   "quantize: padding must not be negative, zero must be a byte");
  const int64_t n = x.size(0), channels = x.size(1), rows = x.size(2), columns = x.size(3);
  for (const Tensor* row : {&scale, &shift}) {
    DISCO_FAST_CHECK(
        row->dim() == 1 && row->size(0) == channels && row->scalar_type() == ScalarType::Float,
        "quantize: scale and shift must be [C] in fp32");
  }
  constexpr auto kLast = torch::headeronly::MemoryFormat::ChannelsLast;
  const Tensor input = torch::stable::contiguous(x, kLast);
  const Tensor s = torch::stable::contiguous(scale), t = torch::stable::contiguous(shift);
  const Tensor out =
      torch::stable::empty({n, channels, rows + 2 * padding, columns + 2 * padding},
                           ScalarType::Byte, std::nullopt, x.device(), std::nullopt, kLast);
  const QuantizeArgs args = {element_of(x),
                             n,
                             rows,
                             columns,
                             channels,
                             padding,
                             slope,
                             int(zero),
                             input.const_data_ptr(),
                             static_cast<const float*>(s.const_data_ptr()),
                             static_cast<const float*>(t.const_data_ptr()),
                             out.mutable_data_ptr()};
  in_parallel(n * (rows + 2 * padding), columns * channels / 8 + 1,
              [&](int64_t begin, int64_t end) { best_kernels().quantize_rows(args, begin, end); });
  return out;
}

std::string instruction_set() { return best_kernels().name; }

}  // namespace
}  // namespace disco_fast

STABLE_TORCH_LIBRARY_IMPL(disco_fast, CPU, m) {
  disco_fast::Ops<disco_fast::CpuBackend>::register_all(m);
  m.impl("quantize", TORCH_BOX(&disco_fast::quantize));
}

STABLE_TORCH_LIBRARY_IMPL(disco_fast, CompositeExplicitAutograd, m) {
  m.impl("_instruction_set", TORCH_BOX(&disco_fast::instruction_set));
}
