#include <algorithm>

#include "bias_act.cuh"
#include "launch.cuh"

namespace disco_fast {
namespace {

template <class T, ActLayout L>
cudaError_t launch_layout(const BiasActArgs& args, cudaStream_t stream) {
  const int64_t channels = args.lead_channels + args.channels;
  const int64_t count = args.rows * channels * args.inner / kActWidth<T, L>;
  // All threads of a step together make whole rows, so that each stays with its channels.
  const int64_t row = L == ActLayout::kChannels ? channels / kActWidth<T, L> : 1;
  const int64_t step = round_up(ceil_div(count, kActPacks<L>), row);
  const int64_t blocks = ceil_div(step, kBiasActThreads);
  if (step >= int64_t(1) << 31) return cudaErrorInvalidValue;
  const auto kernel =
      args.residual == nullptr ? bias_act_kernel<T, L, false> : bias_act_kernel<T, L, true>;
  return launch(kernel, grid_of(blocks), kBiasActThreads, 0, stream, args, count, step);
}

}  // namespace

cudaError_t launch_bias_act(const BiasActArgs& args, cudaStream_t stream) {
  return with_element(args.element, [&](auto t) {
    typedef decltype(t) T;
    constexpr int kWidth = kActWidth<T, ActLayout::kChannels>;
    const auto aligned = [](const void* address) {
      return reinterpret_cast<uintptr_t>(address) % alignof(Pack<T, kWidth>) == 0;
    };
    const bool packed =
        aligned(args.x) && aligned(args.residual) && aligned(args.lead) && aligned(args.out);
    const bool whole = args.channels % kWidth == 0 && args.lead_channels % kWidth == 0;
    const bool rows = aligned(args.bias) && aligned(args.scale) && aligned(args.shift);
    if (packed && rows && args.inner == 1 && whole) {
      return launch_layout<T, ActLayout::kChannels>(args, stream);
    }
    if (packed && args.inner % kWidth == 0) {
      return launch_layout<T, ActLayout::kPlanes>(args, stream);
    }
    return launch_layout<T, ActLayout::kSingle>(args, stream);
  });
}

}  // namespace disco_fast
