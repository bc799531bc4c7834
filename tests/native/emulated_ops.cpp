// The ops on the emulated kernels: the CUDA backend's own tensor layer, for CPU tensors, in a
// namespace of its own. Schemas come from disco_fast/ops/.
#include "../../csrc/ops/cuda_backend.h"
#include "cuda_emulator/emulator.h"

namespace disco_fast {

cudaStream_t current_stream(int) { return nullptr; }

namespace {

void set_order(int64_t order) { emu::set_order(static_cast<emu::Order>(order)); }
void set_multiprocessors(int64_t count) { emu::set_multiprocessors(int(count)); }
void set_shared_memory_limit(int64_t bytes) { emu::set_shared_memory_limit(size_t(bytes)); }
void set_static_shared_memory(int64_t bytes) { emu::set_static_shared_memory(size_t(bytes)); }
void set_architecture(int64_t capability) { emu::set_architecture(int(capability)); }
int64_t allowances() { return emu::allowances(); }

}  // namespace
}  // namespace disco_fast

STABLE_TORCH_LIBRARY_FRAGMENT(disco_fast_emulated, m) {
  m.def("_set_order(int order) -> ()");
  m.def("_set_multiprocessors(int count) -> ()");
  m.def("_set_shared_memory_limit(int bytes) -> ()");
  m.def("_set_static_shared_memory(int bytes) -> ()");
  m.def("_set_architecture(int capability) -> ()");
  m.def("_allowances() -> int");
}

STABLE_TORCH_LIBRARY_IMPL(disco_fast_emulated, CPU, m) { disco_fast::register_cuda(m); }

STABLE_TORCH_LIBRARY_IMPL(disco_fast_emulated, CompositeExplicitAutograd, m) {
  m.impl("_set_order", TORCH_BOX(&disco_fast::set_order));
  m.impl("_set_multiprocessors", TORCH_BOX(&disco_fast::set_multiprocessors));
  m.impl("_set_shared_memory_limit", TORCH_BOX(&disco_fast::set_shared_memory_limit));
  m.impl("_set_static_shared_memory", TORCH_BOX(&disco_fast::set_static_shared_memory));
  m.impl("_set_architecture", TORCH_BOX(&disco_fast::set_architecture));
  m.impl("_allowances", TORCH_BOX(&disco_fast::allowances));
}
