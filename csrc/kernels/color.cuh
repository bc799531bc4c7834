// sRGB to lightness, and lightness with chroma of any size to sRGB, one pass each. A thread
// converts four neighboring pixels where the pictures' sizes and addresses allow packed stores.
#pragma once

#include "../srgb.h"
#include "common.cuh"

namespace disco_fast {

constexpr int kColorThreads = 256;
constexpr int kColorRun = 4;

template <class W>
__device__ __forceinline__ W power(W base, W exponent) {
  if constexpr (sizeof(W) == 8) {
    return pow(base, exponent);
  } else {
    return powf(base, exponent);
  }
}

template <class W>
__device__ __forceinline__ W cube_root(W x) {
  if constexpr (sizeof(W) == 8) {
    return cbrt(x);
  } else {
    return cbrtf(x);
  }
}

template <class W>
__device__ __forceinline__ W decode_srgb(W v) {
  return v > W(kLinearBelow) ? power((v + W(0.055)) / W(1.055), W(2.4)) : v / W(12.92);
}

template <class W>
__device__ __forceinline__ W encode_srgb(W linear) {
  const W clamped = linear < 0 ? W(0) : (linear > 1 ? W(1) : linear);
  return clamped > W(kSrgbLinearBelow) ? W(1.055) * power(clamped, W(1 / 2.4)) - W(0.055)
                                       : W(12.92) * clamped;
}

template <class W>
__device__ __forceinline__ W unit_range(W value) {
  return value;
}
template <class W>
__device__ __forceinline__ W unit_range(uint8_t value) {
  return W(value) / 255;
}

template <class W>
__device__ __forceinline__ uint8_t to_byte(W value) {
  return uint8_t(value * 255 + W(0.5));
}

// Grid: runs of pixels x images. kPacked: every plane begins at an address that packs can have.
template <class W, class In, bool kPacked>
__global__ void __launch_bounds__(kColorThreads) rgb_to_l_kernel(const RgbToLArgs a) {
  constexpr int kPixels = kPacked ? kColorRun : 1;
  const int64_t first = (int64_t(blockIdx.x) * kColorThreads + threadIdx.x) * kPixels;
  if (first >= a.pixels) return;
  const int64_t image = blockIdx.y;
  const In* in = static_cast<const In*>(a.image) + image * a.channels * a.pixels + first;
  Pack<W, kPixels> result;
  Pack<In, kPixels> planes[3];
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    planes[c] = load_pack<kPixels>(in + (c < a.channels ? c : 0) * a.pixels);
  }
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    W y = decode_srgb(unit_range<W>(planes[0].value[i]));
    if (a.channels == 3) {
      y = W(kLumaR) * y + W(kLumaG) * decode_srgb(unit_range<W>(planes[1].value[i])) +
          W(kLumaB) * decode_srgb(unit_range<W>(planes[2].value[i]));
    }
    result.value[i] = y > W(kLightnessLinearBelow) ? 116 * cube_root(y) - 16 : W(903.3) * y;
  }
  store_pack(static_cast<W*>(a.lightness) + image * a.pixels + first, result);
}

// Bilinear sampling along one axis: output `index` of `size` lies between inputs low and high of
// `from`.
template <class W>
struct Sample {
  __device__ __forceinline__ Sample(int64_t index, int64_t size, int64_t from) {
    W position = (W(index) + W(0.5)) * (W(from) / W(size)) - W(0.5);
    position = position < 0 ? W(0) : position;
    low = int64_t(position);
    low = low < from - 1 ? low : from - 1;
    high = low < from - 1 ? low + 1 : low;
    weight = position - W(low);
  }
  int64_t low, high;
  W weight;  // of high
};

template <class W>
__device__ __forceinline__ W blend(W low, W high, W weight) {
  return low + (high - low) * weight;
}

template <class W>
__device__ __forceinline__ W f_inverse(W f) {
  return f > W(kLinearF) ? f * f * f : (f - W(16.0 / 116)) / W(7.787);
}

// One pixel: rgb[3], clamped.
template <class W>
__device__ __forceinline__ void lab_pixel(W lightness, W a, W b, W* rgb) {
  const W fy = (lightness + 16) / 116;
  const W x = f_inverse(fy + a / 500) * W(kWhiteX), y = f_inverse(fy);
  const W z = f_inverse(fy - b / 200) * W(kWhiteZ);
  rgb[0] = encode_srgb(W(kRx) * x + W(kRy) * y + W(kRz) * z);
  rgb[1] = encode_srgb(W(kGx) * x + W(kGy) * y + W(kGz) * z);
  rgb[2] = encode_srgb(W(kBx) * x + W(kBy) * y + W(kBz) * z);
}

// Grid: runs of a row x rows of all images.
template <class W, class Out, bool kPacked>
__global__ void __launch_bounds__(kColorThreads)
    lab_to_rgb_kernel(const LabToRgbArgs a, const int64_t first_row) {
  constexpr int kPixels = kPacked ? kColorRun : 1;
  const int64_t column = (int64_t(blockIdx.x) * kColorThreads + threadIdx.x) * kPixels;
  if (column >= a.columns) return;
  const int64_t index = first_row + blockIdx.y, image = index / a.rows, row = index % a.rows;
  const Sample<W> down(row, a.rows, a.ab_rows);
  const int64_t ab_area = a.ab_rows * a.ab_columns;
  const W* ab = static_cast<const W*>(a.ab) + image * 2 * ab_area;
  const Pack<W, kPixels> lightness =
      load_pack<kPixels>(static_cast<const W*>(a.lightness) + index * a.columns + column);
  Pack<Out, kPixels> planes[3];
#pragma unroll
  for (int i = 0; i < kPixels; ++i) {
    const Sample<W> across(column + i, a.columns, a.ab_columns);
    W chroma[2];
#pragma unroll
    for (int c = 0; c < 2; ++c) {
      const W *low = ab + c * ab_area + down.low * a.ab_columns,
              *high = ab + c * ab_area + down.high * a.ab_columns;
      const W left = blend(low[across.low], high[across.low], down.weight);
      const W right = blend(low[across.high], high[across.high], down.weight);
      chroma[c] = blend(left, right, across.weight);
    }
    W rgb[3];
    lab_pixel(lightness.value[i], chroma[0], chroma[1], rgb);
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      if constexpr (sizeof(Out) == 1) {
        planes[c].value[i] = to_byte(rgb[c]);
      } else {
        planes[c].value[i] = rgb[c];
      }
    }
  }
  const int64_t area = a.rows * a.columns;
  Out* out = static_cast<Out*>(a.rgb) + image * 3 * area + row * a.columns + column;
#pragma unroll
  for (int c = 0; c < 3; ++c) store_pack(out + c * area, planes[c]);
}

}  // namespace disco_fast
