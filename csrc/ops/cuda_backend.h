// The CUDA kernels as a backend of the ops: on the tensor's device, on its current stream.
#pragma once

#include <optional>
#include <string>

#include "../kernels/kernels.h"
#include "ops.h"

namespace disco_fast {

// The stream that work on `device` has to be put on.
cudaStream_t current_stream(int device);

inline void check(cudaError_t error, const char* op) {
  const char* advice = error == cudaErrorNoKernelImageForDevice
                           ? "; `disco-fast info` says for which GPUs this was built, and building "
                             "with DISCO_FAST_CUDA_ARCHS set to this one's mends it"
                           : "";
  DISCO_FAST_CHECK(error == cudaSuccess, op, ": ", cudaGetErrorString(error), advice);
}

// Makes `device` current for its lifetime, for torch and for the CUDA runtime that this library is
// linked with: each has its own idea of the current device. Going back is torch's: this runtime has
// no work but what is launched here, and would take a device from torch that it did not set.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    if (device < 0) return;  // the emulated one
    guard_.emplace(device);
    check(cudaSetDevice(device), "current device");
  }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
};

struct CudaBackend {
  // The kernels read any strides in place.
  static Tensor readable(const Tensor& t) { return t; }

  // Looking at an index would wait for the device. The kernels stay inside the image whatever it
  // is.
  static void check_init(const Tensor&, int64_t) {}

  static std::optional<Tensor> workspace(const KMeansArgs& args, const Tensor& like) {
    const OnDevice guard(like.get_device_index());
    cudaError_t error = cudaSuccess;
    const int64_t bytes = kmeans_workspace(args, &error);
    DISCO_FAST_CHECK(error == cudaSuccess, "kmeans: ", args.points, " points of ", args.dims,
                     " dimensions and ", args.clusters,
                     " clusters do not fit this device: ", cudaGetErrorString(error));
    if (bytes == 0) return std::nullopt;
    return new_tensor(like, {bytes}, ScalarType::Byte);
  }

  static std::optional<Tensor> init_scratch(const Tensor& points) {
    return new_tensor(points, {points.size(0), points.size(1)}, points.scalar_type());
  }

  static Tensor encoder_scratch(const EncoderArgs& args, const Tensor& like) {
    return new_tensor(like, {encoder_workspace(args)}, ScalarType::Byte);
  }

  static void run(const SpPoolArgs& args, const Tensor& on) {
    launch(launch_sp_pool, args, on, "sp_pool");
  }
  static void run(const SpDiffuseArgs& args, const Tensor& on) {
    launch(launch_sp_diffuse, args, on, "sp_diffuse");
  }
  static void run(const SpCorrelateArgs& args, const Tensor& on) {
    launch(launch_sp_correlate, args, on, "sp_correlate");
  }
  static void run(const KMeansArgs& args, const Tensor& on) {
    launch(launch_kmeans, args, on, "kmeans");
  }
  static void run(const KMeansInitArgs& args, const Tensor& on) {
    launch(launch_kmeans_init, args, on, "kmeans_init");
  }
  static void run(const AnchorArgs& args, const Tensor& on) {
    launch(launch_anchors, args, on, "anchors");
  }
  static void run(const EncoderArgs& args, const Tensor& on) {
    launch(launch_encoder, args, on, "encoder");
  }
  static void run(const BiasActArgs& args, const Tensor& on) {
    launch(launch_bias_act, args, on, "bias_act");
  }
  static void run(const AssociateArgs& args, const Tensor& on) {
    launch(launch_associate, args, on, "associate");
  }
  static void run(const ConvolveArgs& args, const Tensor& on) {
    launch(launch_convolve, args, on, "convolve");
  }
  static void run(const RgbToLArgs& args, const Tensor& on) {
    launch(launch_rgb_to_l, args, on, "rgb_to_l");
  }
  static void run(const LabToRgbArgs& args, const Tensor& on) {
    launch(launch_lab_to_rgb, args, on, "lab_to_rgb");
  }

 private:
  template <class Args>
  static void launch(cudaError_t (*launcher)(const Args&, cudaStream_t), const Args& args,
                     const Tensor& on, const char* op) {
    const int device = on.get_device_index();
    const OnDevice guard(device);
    check(launcher(args, current_stream(device)), op);
  }
};

// On a GPU alone: torch's softmax on a CPU is one pass, too.
inline Tensor associate(const Tensor& logits, const std::optional<Tensor>& bias) {
  check_one_device("associate", logits, bias ? *bias : logits);
  DISCO_FAST_CHECK(logits.dim() == 4 && logits.size(1) >= 9,
                   "associate: logits must be [N,C,H,W] with at least 9 channels");
  DISCO_FAST_CHECK(
      !bias || (bias->dim() == 1 && bias->size(0) == 9 && bias->scalar_type() == wide_type(logits)),
      "associate: bias must be [9], fp64 for fp64 and else fp32");
  const Tensor input =
      torch::stable::contiguous(logits, torch::headeronly::MemoryFormat::ChannelsLast);
  const std::optional<Tensor> row = contiguous(bias);
  const int64_t n = logits.size(0), height = logits.size(2), width = logits.size(3);
  const Tensor out = new_tensor(logits, {n, 9, height, width}, wide_type(logits));
  CudaBackend::run(AssociateArgs{element_of(logits), n, height * width, logits.size(1),
                                 input.const_data_ptr(), address(row), out.mutable_data_ptr()},
                   input);
  return out;
}

// On a GPU alone: on a CPU oneDNN has it.
inline Tensor convolve(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                       const std::optional<Tensor>& residual, double slope,
                       const std::optional<Tensor>& scale, const std::optional<Tensor>& shift) {
  const auto here = [&](const std::optional<Tensor>& other) { return other ? *other : x; };
  check_one_device("convolve", x, weight, here(bias), here(residual), here(scale), here(shift));
  const ScalarType type = x.scalar_type();
  DISCO_FAST_CHECK(x.dim() == 4 && x.numel() > 0 && x.element_size() <= 4,
                   "convolve: x must be [N,I,H,W] in fp32, fp16 or bf16");
  const int64_t piece = 16 / x.element_size();
  DISCO_FAST_CHECK(weight.dim() == 4 && weight.scalar_type() == type && weight.size(0) > 0 &&
                       weight.size(1) == x.size(1) && weight.size(2) == 3 && weight.size(3) == 3,
                   "convolve: weight must be [O,I,3,3] like x");
  DISCO_FAST_CHECK(x.size(1) % piece == 0 && weight.size(0) % piece == 0,
                   "convolve: I and O must be multiples of ", piece);
  const int64_t n = x.size(0), outputs = weight.size(0), height = x.size(2), width = x.size(3);
  bool equal = !residual || (residual->dim() == 4 && residual->scalar_type() == type);
  for (int i = 0; residual && equal && i < 4; ++i) {
    equal = residual->size(i) == (i == 1 ? outputs : x.size(i));
  }
  DISCO_FAST_CHECK(equal, "convolve: residual must have the shape and dtype of the result");
  constexpr auto kLast = torch::headeronly::MemoryFormat::ChannelsLast;
  const auto maps = [](const Tensor& tensor) {
    return aligned(torch::stable::contiguous(tensor, kLast));
  };
  const auto row = [&](const std::optional<Tensor>& tensor, const char* name) {
    const std::optional<Tensor> own = channel_row("convolve", name, tensor, outputs, x);
    return own ? std::optional<Tensor>(aligned(*own)) : own;
  };
  const Tensor input = maps(x), kernel = maps(weight);
  const std::optional<Tensor> other = residual ? std::optional<Tensor>(maps(*residual)) : residual;
  const std::optional<Tensor> b = row(bias, "bias"), s = row(scale, "scale"),
                              t = row(shift, "shift");
  const Tensor out = torch::stable::empty({n, outputs, height, width}, type, std::nullopt,
                                          x.device(), std::nullopt, kLast);
  CudaBackend::run(ConvolveArgs{element_of(x), n, height, width, x.size(1), outputs, slope,
                                input.const_data_ptr(), kernel.const_data_ptr(), address(other),
                                address(b), address(s), address(t), out.mutable_data_ptr()},
                   input);
  return out;
}

// Takes the device over for every op.
template <class Library>
void register_cuda(Library& m) {
  Ops<CudaBackend>::register_all(m);
  m.impl("associate", TORCH_BOX(&associate));
  m.impl("convolve", TORCH_BOX(&convolve));
}

}  // namespace disco_fast
