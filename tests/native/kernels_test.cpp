// Runs every kernel, of each instruction set that this processor has and of the emulated GPU, on
// odd shapes and buffers of exactly the right size (so that AddressSanitizer sees any read or write
// beside them), and compares them with one another. Under ThreadSanitizer races between the threads
// of the emulated GPU are found.
#include "cpu/kernels.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "cuda_emulator/emulator.h"
#include "kernels/kernels.h"

using namespace disco_fast;

namespace {

int failures = 0;

// Whatever runs the kernels.
class Backend {
 public:
  explicit Backend(std::string name) : name(std::move(name)) {}
  virtual ~Backend() = default;
  virtual void run(const SpPoolArgs& args) const = 0;
  virtual void run(const SpDiffuseArgs& args) const = 0;
  virtual void run(const SpCorrelateArgs& args) const = 0;
  virtual void run(const KMeansArgs& args) const = 0;
  virtual void run(const KMeansInitArgs& args) const = 0;
  virtual void run(const AnchorArgs& args) const = 0;
  virtual void run(const EncoderArgs& args) const = 0;
  virtual void run(const BiasActArgs& args) const = 0;
  virtual void run(const RgbToLArgs& args) const = 0;
  virtual void run(const LabToRgbArgs& args) const = 0;
  const std::string name;
};

// One instruction set, in two ranges, as two threads would.
class CpuBackend : public Backend {
 public:
  explicit CpuBackend(const Kernels& kernels) : Backend(kernels.name), kernels_(kernels) {}

  void run(const SpPoolArgs& args) const override {
    const int64_t cells = args.grid.images * args.grid.cells();
    if (args.channels > 0) {
      halves(kernels_.sp_pool_cells, args, cells);
      halves(kernels_.sp_pool_gather_cells, args, cells);
    }
    if (args.wins == nullptr) return;
    const SuperpixelSizeArgs size = {args.element, args.grid, args.association, args.wins,
                                     args.size};
    halves(kernels_.superpixel_size_count, size, cells);
    halves(kernels_.superpixel_size_gather, size, cells);
  }
  void run(const SpDiffuseArgs& args) const override {
    halves(kernels_.sp_diffuse_cells, args, args.grid.images * args.grid.cells());
  }
  void run(const SpCorrelateArgs& args) const override {
    halves(kernels_.sp_correlate_cells, args, args.grid.images * args.grid.cells());
  }
  void run(const KMeansArgs& args) const override {
    halves(kernels_.kmeans_images, args, args.images);
  }
  void run(const KMeansInitArgs& args) const override {
    halves(kernels_.kmeans_init_images, args, args.images);
  }
  void run(const AnchorArgs& args) const override {
    halves(kernels_.anchor_images, args, args.images);
  }
  void run(const EncoderArgs& args) const override {
    const int64_t blocks = args.images * encoder_blocks(args.count);
    std::vector<float> workspace(size_t(blocks * kEncoderBlock * kEncoderFloats));
    EncoderArgs with_workspace = args;
    with_workspace.workspace = workspace.data();
    for (int64_t step = 0; step <= args.layers; ++step) {
      kernels_.encode_blocks(with_workspace, step, 0, blocks / 3);
      kernels_.encode_blocks(with_workspace, step, blocks / 3, blocks);
    }
  }
  void run(const BiasActArgs& args) const override {
    halves(kernels_.bias_act_rows, args, args.inner == 1 ? args.rows : args.rows * args.channels);
  }
  void run(const RgbToLArgs& args) const override {
    halves(kernels_.rgb_to_l_pixels, args, args.images * args.pixels);
  }
  void run(const LabToRgbArgs& args) const override {
    halves(kernels_.lab_to_rgb_rows, args, args.images * args.rows);
  }

 private:
  template <class Args>
  static void halves(void (*kernel)(const Args&, int64_t, int64_t), const Args& args,
                     int64_t count) {
    kernel(args, 0, count / 3);
    kernel(args, count / 3, count);
  }
  const Kernels& kernels_;
};

// Shared memory: with little, points come in tiles and K-Means works in L2.
constexpr size_t kMuch = 227 << 10, kLittle = 6 << 10;

// The CUDA kernels and their launchers on the emulated GPU.
class EmulatedBackend : public Backend {
 public:
  EmulatedBackend(std::string name, emu::Order order, size_t shared_memory, int multiprocessors,
                  int architecture)
      : Backend(std::move(name)),
        order_(order),
        shared_memory_(shared_memory),
        multiprocessors_(multiprocessors),
        architecture_(architecture) {}

  void run(const SpPoolArgs& args) const override { launch(launch_sp_pool, args); }
  void run(const SpDiffuseArgs& args) const override { launch(launch_sp_diffuse, args); }
  void run(const SpCorrelateArgs& args) const override { launch(launch_sp_correlate, args); }
  void run(const KMeansArgs& args) const override {
    const size_t memory =
        std::max(shared_memory_, size_t(args.dims) * 400);  // not hundreds of tiles
    emu::set_shared_memory_limit(memory);
    emu::set_multiprocessors(multiprocessors_);
    cudaError_t error = cudaSuccess;
    std::vector<unsigned char> workspace(size_t(kmeans_workspace(args, &error)));
    KMeansArgs with_workspace = args;
    with_workspace.workspace = workspace.data();
    launch(launch_kmeans, with_workspace, memory);
  }
  void run(const KMeansInitArgs& args) const override {
    std::vector<double> nearest(size_t(args.images * args.points));
    KMeansInitArgs with_scratch = args;
    with_scratch.nearest = nearest.data();
    launch(launch_kmeans_init, with_scratch);
  }
  void run(const AnchorArgs& args) const override { launch(launch_anchors, args); }
  void run(const EncoderArgs& args) const override {
    std::vector<float> workspace(size_t(encoder_workspace(args)) / sizeof(float));
    EncoderArgs with_workspace = args;
    with_workspace.workspace = workspace.data();
    emu::set_multiprocessors(multiprocessors_);
    launch(launch_encoder, with_workspace, kMuch);
  }
  void run(const BiasActArgs& args) const override { launch(launch_bias_act, args); }
  void run(const RgbToLArgs& args) const override { launch(launch_rgb_to_l, args); }
  void run(const LabToRgbArgs& args) const override { launch(launch_lab_to_rgb, args); }

 private:
  template <class Args>
  void launch(cudaError_t (*launcher)(const Args&, cudaStream_t), const Args& args,
              size_t least_memory = 0) const {
    emu::set_order(order_);
    emu::set_architecture(architecture_);
    emu::set_shared_memory_limit(std::max(shared_memory_, least_memory));
    const cudaError_t error = launcher(args, nullptr);
    if (error == cudaSuccess) return;
    ++failures;
    std::printf("%s: %s\n", name.c_str(), cudaGetErrorString(error));
  }
  const emu::Order order_;
  const size_t shared_memory_;
  const int multiprocessors_, architecture_;
};

typedef std::vector<std::unique_ptr<Backend>> Backends;

// The first is what the others are compared with.
Backends backends() {
  Backends all;
  all.push_back(std::make_unique<CpuBackend>(baseline::kernels()));
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    all.push_back(std::make_unique<CpuBackend>(avx2::kernels()));
  }
  if (&best_kernels() == &avx512::kernels()) {
    all.push_back(std::make_unique<CpuBackend>(avx512::kernels()));
  }
#endif
  const auto add = [&](const char* name, emu::Order order, size_t shared_memory, int processors,
                       int architecture) {
    all.push_back(
        std::make_unique<EmulatedBackend>(name, order, shared_memory, processors, architecture));
  };
  add("emulated", emu::Order::kAscending, kMuch, 3, 90);
  add("emulated-small", emu::Order::kAscending, kLittle, 1, 75);
#if !defined(__SANITIZE_THREAD__)  // which finds races in any order, and is slow
  add("emulated-descending", emu::Order::kDescending, kMuch, 3, 90);
  add("emulated-shuffled", emu::Order::kShuffled, kMuch, 3, 90);
#endif
  return all;
}

bool is_emulated(const Backend& backend) { return backend.name.rfind("emulated", 0) == 0; }

typedef std::vector<unsigned char> Bytes;

size_t size_of(Element e) { return e == Element::kFloat64 ? 8 : e == Element::kFloat32 ? 4 : 2; }
Element wide(Element e) { return e == Element::kFloat64 ? e : Element::kFloat32; }

float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float value =
      exponent ? std::ldexp(1024 + mantissa, exponent - 25) : std::ldexp(mantissa, -24);
  return bits & 0x8000 ? -value : value;
}

double get(const Bytes& buffer, Element e, size_t i) {
  const unsigned char* p = buffer.data() + i * size_of(e);
  if (e == Element::kFloat64) {
    double v;
    std::memcpy(&v, p, 8);
    return v;
  }
  if (e == Element::kFloat32) {
    float v;
    std::memcpy(&v, p, 4);
    return v;
  }
  uint16_t bits;
  std::memcpy(&bits, p, 2);
  if (e == Element::kFloat16) return half_to_float(bits);
  const uint32_t wide_bits = uint32_t(bits) << 16;
  float v;
  std::memcpy(&v, &wide_bits, 4);
  return v;
}

// Random numbers in 0..1 that every element type holds exactly: multiples of 1/64.
Bytes random_values(Element e, size_t count, unsigned seed) {
  std::mt19937 generator(seed);
  Bytes buffer(count * size_of(e));
  for (size_t i = 0; i < count; ++i) {
    const float v = float(generator() % 65) / 64;
    unsigned char* p = buffer.data() + i * size_of(e);
    if (e == Element::kFloat64) {
      const double d = v;
      std::memcpy(p, &d, 8);
    } else if (e == Element::kFloat32) {
      std::memcpy(p, &v, 4);
    } else if (e == Element::kBFloat16) {
      uint32_t bits;
      std::memcpy(&bits, &v, 4);
      const uint16_t half = uint16_t(bits >> 16);
      std::memcpy(p, &half, 2);
    } else {
      int exponent;
      const float fraction = std::frexp(v, &exponent);
      const uint16_t half =
          v == 0 ? 0 : uint16_t((exponent + 14) << 10 | int((2 * fraction - 1) * 1024));
      std::memcpy(p, &half, 2);
    }
  }
  return buffer;
}

void expect_close(const char* what, const Bytes& a, const Bytes& b, Element e, double tolerance) {
  for (size_t i = 0; i < a.size() / size_of(e); ++i) {
    const double x = get(a, e, i), y = get(b, e, i);
    if (!(std::fabs(x - y) <= tolerance)) {
      std::printf("%s: element %zu is %.9g, baseline %.9g\n", what, i, x, y);
      ++failures;
      return;
    }
  }
}

// Runs body(backend) -> result for each and compares it with the first's; those of the emulated GPU
// have to be the same to the bit in any order of the threads.
void compare(const char* what, Element e, double tolerance,
             const std::function<Bytes(const Backend&)>& body) {
  Bytes first, ascending;
  for (const auto& backend : backends()) {
    const Bytes result = body(*backend);
    const std::string where = std::string(what) + " " + backend->name;
    if (first.empty()) first = result;
    expect_close(where.c_str(), result, first, e, tolerance);
    if (!is_emulated(*backend) || backend->name == "emulated-small") continue;
    if (ascending.empty()) ascending = result;
    if (result != ascending) {
      std::printf("%s: depends on the order of the threads\n", where.c_str());
      ++failures;
    }
  }
}

View view(const Bytes& buffer, bool interleaved, int64_t channels, int64_t height, int64_t width) {
  return interleaved ? View{buffer.data(), channels * height * width, 1, width * channels, channels}
                     : View{buffer.data(), channels * height * width, height * width, width, 1};
}

Bytes joined(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

void superpixel_case(Element e, Grid grid, int64_t channels, bool interleaved) {
  const int64_t height = grid.rows * grid.cell, width = grid.columns * grid.cell;
  const size_t pixels = size_t(grid.images * height * width),
               cells = size_t(grid.images * grid.cells());
  const Bytes features = random_values(e, pixels * channels, 1);
  const Bytes association = random_values(e, pixels * 9, 2);
  const Bytes tokens = random_values(wide(e), cells * channels, 3);
  const View feature_view = view(features, interleaved, channels, height, width);
  const View association_view = view(association, interleaved, 9, height, width);
  const View token_view = view(tokens, false, channels, grid.rows, grid.columns);
  // Sums of up to 9 * 289 * 40 products; half types are stored once.
  const double wide_tolerance = e == Element::kFloat64 ? 1e-9 : 1e-3;
  const double tolerance = e == wide(e) ? wide_tolerance : 0.25;

  compare("aggregate", wide(e), wide_tolerance, [&](const Backend& backend) {
    Bytes partial(cells * 9 * (channels + 1) * size_of(wide(e)));
    std::vector<int32_t> wins(cells * 9);
    Bytes sums(cells * channels * size_of(wide(e))), weight(cells * size_of(wide(e)));
    Bytes size(cells * size_of(wide(e)));
    backend.run(SpPoolArgs{e, e, grid, channels, feature_view, association_view, true,
                           partial.data(), wins.data(), sums.data(), weight.data(), size.data()});
    return joined(joined(sums, weight), size);
  });
  compare("size", wide(e), 0, [&](const Backend& backend) {
    Bytes partial(cells * 9 * size_of(wide(e)));
    std::vector<int32_t> wins(cells * 9);
    Bytes weight(cells * size_of(wide(e))), size(cells * size_of(wide(e)));
    backend.run(SpPoolArgs{e, e, grid, 0, View{}, association_view, false, partial.data(),
                           wins.data(), nullptr, weight.data(), size.data()});
    return size;
  });
  for (const int64_t leads : {0, 1, 8}) {
    compare("diffuse", e, tolerance, [&](const Backend& backend) {
      Bytes out(pixels * (channels + leads) * size_of(e));
      backend.run(SpDiffuseArgs{e, grid, channels, leads, token_view, association_view,
                                leads > 0 ? association_view : View{},
                                view(out, interleaved, channels + leads, height, width)});
      return out;
    });
  }
  compare("correlate", e, tolerance, [&](const Backend& backend) {
    Bytes out(pixels * 9 * size_of(e));
    const View offset = channels > 1 ? token_view : View{};
    backend.run(SpCorrelateArgs{e, grid, channels, feature_view, token_view, offset, out.data()});
    return out;
  });
}

// Whole numbers as bytes of doubles, to be compared exactly.
Bytes exact(const std::vector<int64_t>& numbers) {
  std::vector<double> values(numbers.begin(), numbers.end());
  Bytes bytes(values.size() * sizeof(double));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

// `distinct` points, over and over: fewer than clusters leave some of them empty.
void cluster_case(Element e, int64_t images, int64_t points, int64_t dims, int64_t clusters,
                  int64_t distinct) {
  const size_t n = size_t(images), block = size_t(distinct * dims) * size_of(e);
  Bytes data = random_values(e, n * points * dims, 4);
  for (size_t i = block; i < data.size(); ++i) data[i] = data[i - block];
  std::vector<int64_t> init(n * clusters);
  for (size_t i = 0; i < init.size(); ++i) init[i] = int64_t(i) % clusters;
  compare("kmeans centers", e, 1e-5, [&](const Backend& backend) {
    std::vector<int64_t> labels(n * points), iterations(n);
    Bytes centers(n * clusters * dims * size_of(e));
    backend.run(KMeansArgs{e, images, points, dims, clusters, 20, 1e-4, data.data(), init.data(),
                           nullptr, labels.data(), centers.data(), iterations.data()});
    return centers;
  });
  compare("kmeans of points that packs cannot be read from", e, 1e-5, [&](const Backend& backend) {
    Bytes moved(size_of(e));
    moved.insert(moved.end(), data.begin(), data.end());
    std::vector<int64_t> labels(n * points), iterations(n);
    Bytes centers(n * clusters * dims * size_of(e));
    backend.run(KMeansArgs{e, images, points, dims, clusters, 20, 1e-4, moved.data() + size_of(e),
                           init.data(), nullptr, labels.data(), centers.data(), iterations.data()});
    return centers;
  });
  for (const bool plus_plus : {false, true}) {
    compare("kmeans_init", Element::kFloat64, 0, [&](const Backend& backend) {
      std::vector<int64_t> chosen(n * clusters);
      backend.run(KMeansInitArgs{e, images, points, dims, clusters, 7, plus_plus, data.data(),
                                 nullptr, chosen.data()});
      return exact(chosen);
    });
  }
}

void anchor_case(Element e, int64_t images, int64_t points, int64_t clusters, int64_t bins) {
  const size_t n = size_t(images);
  std::vector<int64_t> labels(n * points);
  for (size_t i = 0; i < labels.size(); ++i) labels[i] = int64_t(i * i) % clusters;
  const Bytes sizes = random_values(e, n * points, 5);
  const Bytes logits = random_values(e, n * points * bins, 9);  // with many ties
  std::vector<float> centers(size_t(bins * 2));
  for (size_t i = 0; i < centers.size(); ++i) centers[i] = float(i * 37 % 21) * 10 - 100;
  const Bytes offset = random_values(e, size_t(bins), 7);
  for (const double temperature : {0.0, 0.38}) {
    compare("anchors", Element::kFloat64, 0, [&](const Backend& backend) {
      std::vector<int64_t> anchors(n * clusters), colors(n * 3 * clusters);
      AnchorArgs args = {};
      args.element = e;
      args.images = images;
      args.points = points;
      args.clusters = clusters;
      args.labels = labels.data();
      args.sizes = sizes.data();
      args.bins = bins;
      args.variants = 3;
      args.logits = logits.data();
      args.offset = temperature > 0 ? offset.data() : nullptr;
      args.temperature = temperature;
      args.bin_centers = centers.data();
      args.anchors = anchors.data();
      args.colors = colors.data();
      backend.run(args);
      Bytes both = joined(exact(anchors), exact(colors));
      args.labels = nullptr;  // the colors of given anchors
      backend.run(args);
      return joined(both, exact(colors));
    });
  }
}

void color_case(Element e, int64_t height, int64_t width, int64_t ab_height, int64_t ab_width) {
  const size_t pixels = size_t(2 * height * width);
  const Bytes image = random_values(e, pixels * 3, 6);
  Bytes bytes(pixels * 3);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = (unsigned char)(i * 37);
  for (const bool from_bytes : {false, true}) {
    compare("lightness", e, 1e-3, [&](const Backend& backend) {
      Bytes out(pixels * size_of(e));
      const void* in = from_bytes ? bytes.data() : image.data();
      backend.run(RgbToLArgs{e, from_bytes, 2, 3, height * width, in, out.data()});
      return out;
    });
  }
  const Bytes ab = random_values(e, size_t(2 * 2 * ab_height * ab_width), 8);
  compare("rgb", e, 1e-4, [&](const Backend& backend) {
    Bytes out(pixels * 3 * size_of(e)), rounded(pixels * 3);
    LabToRgbArgs args = {e,        false,        2,         height,    width, ab_height,
                         ab_width, image.data(), ab.data(), out.data()};
    backend.run(args);
    args.bytes = true;
    args.rgb = rounded.data();
    backend.run(args);
    return out;
  });
}

// Whole packs and not, of channels and of planes, with and without everything that may be missing.
void bias_act_case(Element e, int64_t rows, int64_t channels, int64_t inner, int64_t lead = 0) {
  const size_t count = size_t(rows * channels * inner), first = size_t(rows * lead * inner);
  const Bytes x = random_values(e, count, 13), residual = random_values(e, count, 14);
  const Bytes bias = random_values(wide(e), size_t(channels), 15);
  const Bytes leading = random_values(e, first, 16);
  const double tolerance = e == wide(e) ? 1e-6 : 0.02;
  for (const bool all : {false, true}) {
    compare("bias_act", e, tolerance, [&](const Backend& backend) {
      Bytes out((first + count) * size_of(e));
      BiasActArgs args = {};
      args.element = e;
      args.rows = rows;
      args.channels = channels;
      args.inner = inner;
      args.lead_channels = lead;
      args.lead = leading.data();
      args.slope = all ? 0.25 : 0;
      args.x = x.data();
      args.residual = all ? residual.data() : nullptr;
      args.bias = bias.data();
      args.scale = args.shift = all ? bias.data() : nullptr;
      args.out = out.data();
      backend.run(args);
      return out;
    });
  }
}

// What convolve makes of pixel and output `at` of [N, H, W, outputs], in plain sums.
double convolved(const ConvolveArgs& a, const Bytes& x, const Bytes& weight, int64_t at) {
  const int64_t output = at % a.outputs, column = at / a.outputs % a.columns;
  const int64_t row = at / (a.outputs * a.columns) % a.rows;
  const int64_t image = at / (a.outputs * a.columns * a.rows);
  double sum = 0;
  for (int64_t tap = 0; tap < 9; ++tap) {
    const int64_t y = row + tap / 3 - 1, z = column + tap % 3 - 1;
    if (y < 0 || y >= a.rows || z < 0 || z >= a.columns) continue;
    for (int64_t input = 0; input < a.inputs; ++input) {
      const int64_t from = ((image * a.rows + y) * a.columns + z) * a.inputs + input;
      sum += get(x, a.element, size_t(from)) *
             get(weight, a.element, size_t((output * 9 + tap) * a.inputs + input));
    }
  }
  return sum;
}

// With the emulated GPU's tiles for many multiprocessors, and for few; there is no CPU kernel.
void convolve_case(Element e, int64_t images, int64_t rows, int64_t columns, int64_t inputs,
                   int64_t outputs) {
  const size_t count = size_t(images * rows * columns);
  const Bytes x = random_values(e, count * size_t(inputs), 17);
  const Bytes weight = random_values(e, size_t(9 * inputs * outputs), 18);
  const Bytes residual = random_values(e, count * size_t(outputs), 19);
  const Bytes bias = random_values(Element::kFloat32, size_t(outputs), 20);
  Bytes out(count * size_t(outputs) * size_of(e));
  const ConvolveArgs args = {e,           images,      rows,        columns,       inputs,
                             outputs,     0.25,        x.data(),    weight.data(), residual.data(),
                             bias.data(), bias.data(), bias.data(), out.data()};
  const double tolerance = e == Element::kFloat32 ? 1e-6 : e == Element::kFloat16 ? 5e-4 : 4e-3;
  for (const auto order :
       {emu::Order::kAscending, emu::Order::kDescending, emu::Order::kShuffled}) {
    for (const int processors : {1, 1000}) {
      std::fill(out.begin(), out.end(), 0xff);
      emu::set_order(order);
      emu::set_architecture(90);
      emu::set_shared_memory_limit(kMuch);
      emu::set_multiprocessors(processors);
      bool good = launch_convolve(args, nullptr) == cudaSuccess;
      for (size_t at = 0; at < count * size_t(outputs); ++at) {
        const double row = get(bias, Element::kFloat32, at % size_t(outputs));
        const double sum = convolved(args, x, weight, int64_t(at)) + row + get(residual, e, at);
        const double right = sum * row + row;
        good = good && std::abs(get(out, e, at) - right) <= right * tolerance;
      }
      if (good) continue;
      ++failures;
      std::printf("convolve: %d multiprocessors, order %d\n", processors, int(order));
    }
  }
  emu::set_architecture(75);
  if (launch_convolve(args, nullptr) == cudaErrorNoKernelImageForDevice) return;
  ++failures;
  std::printf("convolve: before compute capability 8.0\n");
}

void encoder_case(int64_t images, int64_t count, int64_t layers) {
  const size_t size = size_t(images * count * kTokenDim), n = size_t(layers * EncoderLayer::kSize);
  const Element e = Element::kFloat32;
  const Bytes tokens = random_values(e, size, 10);
  const Bytes position = random_values(e, size_t(count * kTokenDim), 11);
  Bytes weights = random_values(e, n, 12);
  for (size_t i = 0; i < n; ++i) {
    const float centered = float(get(weights, e, i) - 0.5) / 4;  // sums stay of order 1
    std::memcpy(weights.data() + i * sizeof(float), &centered, sizeof(float));
  }
  compare("encoder", e, 1e-5, [&](const Backend& backend) {
    Bytes out(size * sizeof(float));
    const auto floats = [](const Bytes& b) { return reinterpret_cast<const float*>(b.data()); };
    backend.run(EncoderArgs{images, count, layers, floats(tokens), floats(position),
                            floats(weights), nullptr, reinterpret_cast<float*>(out.data())});
    return out;
  });
}

}  // namespace

// With an argument, only the part of that name.
int main(int count, char** arguments) {
  const auto wanted = [&](const char* part) {
    return count < 2 || std::strcmp(arguments[1], part) == 0;
  };
  for (const Element e :
       {Element::kFloat32, Element::kFloat64, Element::kBFloat16, Element::kFloat16}) {
    for (const bool interleaved : {false, true}) {
      if (!wanted("superpixels")) continue;
      for (const int64_t channels : {1, 7, 16, 33, 68, 72}) {
        superpixel_case(e, {1, 2, 3, 8}, channels, interleaved);
      }
      superpixel_case(e, {2, 1, 1, 16}, 5, interleaved);
      superpixel_case(e, {1, 2, 2, 17}, 3, interleaved);
      superpixel_case(e, {2, 1, 2, 16}, 64, interleaved);
      superpixel_case(e, {1, 1, 2, 32}, 19, interleaved);
      superpixel_case(e, {1, 1, 2, 32}, 24, interleaved);
    }
  }
  for (const Element e :
       {Element::kFloat32, Element::kFloat64, Element::kBFloat16, Element::kFloat16}) {
    if (!wanted("pointwise")) continue;
    for (const int64_t lead : {0, 8, 3}) {
      bias_act_case(e, 300, 24, 1, lead);
      bias_act_case(e, 5, 3, 1, lead);
      bias_act_case(e, 2, 5, 24, lead);
      bias_act_case(e, 2, 3, 35, lead);
    }
  }
  for (const Element e : {Element::kFloat32, Element::kFloat64}) {
    if (wanted("clusters")) {
      cluster_case(e, 1, 1, 3, 1, 1);
      cluster_case(e, 2, 37, 5, 13, 37);
      cluster_case(e, 3, 64, 16, 8, 64);
      cluster_case(e, 2, 40, 3, 9, 4);
      cluster_case(e, 1, 90, 70, 3, 90);  // two warps for a cluster, two tiles
    }
    if (wanted("anchors")) {
      anchor_case(e, 1, 1, 1, 10);
      anchor_case(e, 2, 50, 9, 33);
    }
    if (wanted("colors")) {
      color_case(e, 3, 65, 2, 3);
      color_case(e, 1, 1, 1, 1);
      color_case(e, 5, 132, 5, 132);
    }
  }
  if (wanted("clusters")) {
    cluster_case(Element::kFloat32, 2, 800, 64, 3, 800);  // four tiles for three blocks
    cluster_case(Element::kFloat32, 1, 740, 64, 5, 4);    // three tiles, and empty clusters
  }
  if (wanted("convolutions")) {
    convolve_case(Element::kBFloat16, 2, 3, 17, 72, 24);
    convolve_case(Element::kFloat16, 1, 18, 6, 8, 72);
    convolve_case(Element::kFloat32, 1, 5, 18, 20, 68);
    convolve_case(Element::kFloat32, 2, 18, 3, 4, 12);
  }
  if (wanted("encoder")) {
    encoder_case(1, 9, 2);   // a block for each tile of 4 tokens
    encoder_case(2, 37, 1);  // several tiles for a block, several images for a group
  }
  for (const auto& backend : backends()) std::printf("%s ", backend->name.c_str());
  std::printf("%d failures\n", failures);
  return failures != 0;
}
