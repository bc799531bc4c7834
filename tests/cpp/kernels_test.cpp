// Runs every CPU kernel of every instruction set that this processor has, on odd shapes and buffers
// of exactly the right size (so that AddressSanitizer sees any read or write beside them), and
// compares the sets with one another.
#include "../../csrc/cpu/kernels.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <vector>

using namespace disco_fast;

namespace {

std::vector<const Kernels*> kernels_here() {
  std::vector<const Kernels*> all = {&baseline::kernels()};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    all.push_back(&avx2::kernels());
  }
  if (&best_kernels() == &avx512::kernels()) all.push_back(&avx512::kernels());
#endif
  return all;
}

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

int failures = 0;

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

// Runs body(kernels) -> result for each set and compares with the first.
void compare(const char* what, Element e, double tolerance,
             const std::function<Bytes(const Kernels&)>& body) {
  Bytes first;
  for (const Kernels* kernels : kernels_here()) {
    const Bytes result = body(*kernels);
    if (first.empty()) {
      first = result;
    } else {
      expect_close((std::string(what) + " " + kernels->name).c_str(), result, first, e, tolerance);
    }
  }
}

View view(const Bytes& buffer, bool interleaved, int64_t channels, int64_t height, int64_t width) {
  return interleaved ? View{buffer.data(), channels * height * width, 1, width * channels, channels}
                     : View{buffer.data(), channels * height * width, height * width, width, 1};
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
  const int64_t n = int64_t(cells), middle = n / 2;  // in two ranges, as two threads would

  compare("aggregate", wide(e), wide_tolerance, [&](const Kernels& k) {
    Bytes partial(cells * 9 * (channels + 1) * size_of(wide(e)));
    Bytes sums(cells * channels * size_of(wide(e))), weight(cells * size_of(wide(e)));
    const AggregateArgs args = {e,    grid,           channels,    feature_view, association_view,
                                true, partial.data(), sums.data(), weight.data()};
    k.aggregate_cells(args, 0, middle);
    k.aggregate_cells(args, middle, n);
    k.gather_cells(args, 0, n);
    sums.insert(sums.end(), weight.begin(), weight.end());
    return sums;
  });
  compare("diffuse", e, tolerance, [&](const Kernels& k) {
    Bytes out(pixels * channels * size_of(e));
    const DiffuseArgs args = {e,
                              grid,
                              channels,
                              token_view,
                              association_view,
                              view(out, interleaved, channels, height, width)};
    k.diffuse_cells(args, 0, middle);
    k.diffuse_cells(args, middle, n);
    return out;
  });
  compare("correlate", e, tolerance, [&](const Kernels& k) {
    Bytes out(pixels * 9 * size_of(e));
    const View offset = channels > 1 ? token_view : View{};
    const CorrelateArgs args = {e, grid, channels, feature_view, token_view, offset, out.data()};
    k.correlate_cells(args, 0, n);
    return out;
  });
  compare("size", wide(e), 0, [&](const Kernels& k) {
    std::vector<int32_t> wins(cells * 9);
    Bytes size(cells * size_of(wide(e)));
    const SizeArgs args = {e, grid, association_view, wins.data(), size.data()};
    k.count_wins(args, 0, n);
    k.gather_wins(args, 0, n);
    return size;
  });
}

void cluster_case(Element e, int64_t images, int64_t points, int64_t dims, int64_t clusters) {
  const Bytes data = random_values(e, size_t(images * points * dims), 4);
  std::vector<int64_t> init(size_t(images * clusters));
  for (size_t i = 0; i < init.size(); ++i) init[i] = int64_t(i) % clusters;
  compare("kmeans centers", e, 1e-5, [&](const Kernels& k) {
    const size_t n = size_t(images);
    std::vector<int64_t> labels(n * points), iterations(n);
    Bytes centers(size_t(images * clusters * dims) * size_of(e));
    const KMeansArgs args = {
        e,           points,        dims,           clusters,         20, 1e-4, data.data(),
        init.data(), labels.data(), centers.data(), iterations.data()};
    k.kmeans_images(args, 0, images);
    return centers;
  });
  for (const bool plus_plus : {false, true}) {
    for (const Kernels* k : kernels_here()) {
      std::vector<int64_t> chosen(size_t(images * clusters));
      const KMeansInitArgs args = {e, points,    dims,        clusters,
                                   7, plus_plus, data.data(), chosen.data()};
      k->kmeans_init_images(args, 0, images);
      for (const int64_t c : chosen) failures += c < 0 || c >= points;
    }
  }
  compare("select", e, 0, [&](const Kernels& k) {
    const size_t n = size_t(images);
    std::vector<int64_t> labels(n * points), anchors(n * clusters);
    for (size_t i = 0; i < labels.size(); ++i) labels[i] = int64_t(i * i) % clusters;
    const Bytes sizes = random_values(e, size_t(images * points), 5);
    const SelectArgs args = {e, points, clusters, labels.data(), sizes.data(), anchors.data()};
    k.select_images(args, 0, images);
    Bytes exact(anchors.size());  // compared byte by byte, as numbers below 256
    for (size_t i = 0; i < exact.size(); ++i) exact[i] = (unsigned char)anchors[i];
    exact.resize((exact.size() + 7) / 8 * 8);
    return exact;
  });
}

void color_case(Element e, int64_t height, int64_t width, int64_t ab_height, int64_t ab_width) {
  const size_t pixels = size_t(2 * height * width);
  const Bytes image = random_values(e, pixels * 3, 6);
  Bytes bytes(pixels * 3);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = (unsigned char)(i * 37);
  for (const bool from_bytes : {false, true}) {
    compare("lightness", e, 1e-3, [&](const Kernels& k) {
      Bytes out(pixels * size_of(e));
      const void* in = from_bytes ? bytes.data() : image.data();
      const LightnessArgs args = {e, from_bytes, 3, height * width, in, out.data()};
      k.lightness_pixels(args, 0, int64_t(pixels) / 3);
      k.lightness_pixels(args, int64_t(pixels) / 3, int64_t(pixels));
      return out;
    });
  }
  const Bytes ab = random_values(e, size_t(2 * 2 * ab_height * ab_width), 8);
  compare("rgb", e, 1e-4, [&](const Kernels& k) {
    Bytes out(pixels * 3 * size_of(e)), rounded(pixels * 3);
    RgbArgs args = {e,        false,        height,    width,     ab_height,
                    ab_width, image.data(), ab.data(), out.data()};
    k.rgb_rows(args, 0, 2 * height);
    args.bytes = true;
    args.rgb = rounded.data();
    k.rgb_rows(args, 0, 2 * height);
    return out;
  });
}

}  // namespace

int main() {
  for (const Element e :
       {Element::kFloat32, Element::kFloat64, Element::kBFloat16, Element::kFloat16}) {
    for (const bool interleaved : {false, true}) {
      for (const int64_t channels : {1, 2, 7, 16, 33, 40}) {
        superpixel_case(e, {2, 2, 3, 8}, channels, interleaved);
      }
      superpixel_case(e, {1, 1, 1, 16}, 5, interleaved);
      superpixel_case(e, {1, 2, 2, 17}, 3, interleaved);
      superpixel_case(e, {1, 1, 2, 32}, 19, interleaved);
    }
  }
  for (const Element e : {Element::kFloat32, Element::kFloat64}) {
    cluster_case(e, 1, 1, 3, 1);
    cluster_case(e, 2, 37, 5, 13);
    cluster_case(e, 3, 64, 16, 8);
    color_case(e, 3, 65, 2, 3);
    color_case(e, 1, 1, 1, 1);
    color_case(e, 5, 130, 5, 130);
  }
  for (const Kernels* kernels : kernels_here()) std::printf("%s ", kernels->name);
  std::printf("%d failures\n", failures);
  return failures != 0;
}
