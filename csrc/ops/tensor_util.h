// The only home of stable-ABI words: short names, checks, views.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "../cpu/kernels.h"

namespace disco_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// Throws with the op's name in front unless `condition` holds.
#define DISCO_FAST_CHECK(condition, ...) STD_TORCH_CHECK(condition, "disco_fast: ", __VA_ARGS__)

inline Element element_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Element::kFloat32;
    case ScalarType::Double:
      return Element::kFloat64;
    case ScalarType::BFloat16:
      return Element::kBFloat16;
    case ScalarType::Half:
      return Element::kFloat16;
    default:
      break;
  }
  DISCO_FAST_CHECK(false, "expected fp64, fp32, fp16 or bf16");
  return Element::kFloat32;
}

inline ScalarType wide_type(const Tensor& tensor) {
  return tensor.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

inline View view_of(const Tensor& t) {
  return {t.const_data_ptr(), t.stride(0), t.stride(1), t.stride(2), t.stride(3)};
}

// In place where columns or channels are adjacent, else a contiguous copy.
inline Tensor readable(const Tensor& t) {
  const bool planar = t.stride(3) == 1, interleaved = t.stride(1) == 1;
  return planar || interleaved ? t : torch::stable::contiguous(t);
}

inline Tensor new_tensor(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape,
                         ScalarType type) {
  return torch::stable::empty(shape, type, std::nullopt, like.device());
}

inline Grid grid_of(const Tensor& association, int64_t cell, const char* op) {
  DISCO_FAST_CHECK(association.dim() == 4 && association.size(1) == 9, op,
                   ": association must be [N,9,H,W]");
  DISCO_FAST_CHECK(cell >= 1 && association.size(2) % cell == 0 && association.size(3) % cell == 0,
                   op, ": H and W must be multiples of cell_size");
  return {association.size(0), association.size(2) / cell, association.size(3) / cell, cell};
}

// Runs items 0..count-1 on torch's thread pool; `cost` is one item's work in nanoseconds, roughly.
template <class Body>
void in_parallel(int64_t count, int64_t cost, const Body& body) {
  constexpr int64_t kWorthAThread = 20'000;  // below some 20 us, waking another thread costs more
  const int64_t grain = kWorthAThread / (cost > 0 ? cost : 1) + 1;
  torch::stable::parallel_for(0, count, grain, body);
}

}  // namespace disco_fast
