#include "associate.cuh"
#include "launch.cuh"

namespace disco_fast {

cudaError_t launch_associate(const AssociateArgs& args, cudaStream_t stream) {
  return with_element(args.element, [&](auto t) {
    typedef decltype(t) T;
    constexpr int64_t kWidth = 16 / int64_t(sizeof(T));
    const bool packed = reinterpret_cast<uintptr_t>(args.logits) % 16 == 0 &&
                        args.channels % kWidth == 0 && args.channels >= round_up(9, kWidth);
    const int64_t blocks = ceil_div(args.pixels, kAssociateThreads);
    if (!fits_grid(blocks, args.images)) return cudaErrorInvalidValue;
    return launch(packed ? associate_kernel<T, true> : associate_kernel<T, false>,
                  grid_of(blocks, args.images), kAssociateThreads, 0, stream, args);
  });
}

}  // namespace disco_fast
