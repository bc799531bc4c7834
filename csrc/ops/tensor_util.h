// The only home of stable-ABI words: short names, checks, views.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <optional>

#include "../args.h"

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

inline Tensor new_tensor(const Tensor& like, torch::headeronly::IntHeaderOnlyArrayRef shape,
                         ScalarType type) {
  return torch::stable::empty(shape, type, std::nullopt, like.device());
}

inline bool is_channels_last(const Tensor& t) {
  const int64_t c = t.size(1), h = t.size(2), w = t.size(3);
  const bool last = t.stride(1) == 1 && t.stride(3) == c && t.stride(2) == w * c &&
                    (t.size(0) == 1 || t.stride(0) == h * w * c);
  return last && !t.is_contiguous();
}

// All tensors of an op lie where its first one does: a kernel would read another device's address,
// and a GPU's context does not survive that.
template <class... Tensors>
void check_one_device(const char* op, const Tensor& first, const Tensors&... others) {
  const auto check = [&](const Tensor& other) {
    DISCO_FAST_CHECK(other.device() == first.device(), op, ": all tensors must be on one device");
  };
  (check(others), ...);
}

inline std::optional<Tensor> contiguous(const std::optional<Tensor>& tensor) {
  return tensor ? std::optional<Tensor>(torch::stable::contiguous(*tensor)) : std::nullopt;
}

inline const void* address(const std::optional<Tensor>& tensor) {
  return tensor ? tensor->const_data_ptr() : nullptr;
}

// A number for each of the channels of x, that what follows a convolution takes; contiguous.
inline std::optional<Tensor> channel_row(const char* op, const char* name,
                                         const std::optional<Tensor>& row, int64_t channels,
                                         const Tensor& x) {
  DISCO_FAST_CHECK(
      !row || (row->dim() == 1 && row->size(0) == channels && row->scalar_type() == wide_type(x)),
      op, ": ", name, " must be [C], fp64 for fp64 and else fp32");
  return contiguous(row);
}

// A contiguous tensor at an address that vectors of 16 bytes can be read from.
inline Tensor aligned(const Tensor& t) {
  const bool fits = reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
  return fits ? t : torch::stable::clone(t);
}

template <class T>
T* data(const Tensor& t) {
  return static_cast<T*>(t.mutable_data_ptr());
}

}  // namespace disco_fast
