// The CUDA half.
#include "cuda_backend.h"

// Only the CUDA builds of torch define it, in a library of their own: a strong reference would keep
// this library from loading anywhere else, where nobody calls it.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);

namespace disco_fast {

cudaStream_t current_stream(int device) {
  DISCO_FAST_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                   "this torch has no CUDA, or hides its streams");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

}  // namespace disco_fast

STABLE_TORCH_LIBRARY_IMPL(disco_fast, CUDA, m) { disco_fast::register_cuda(m); }
