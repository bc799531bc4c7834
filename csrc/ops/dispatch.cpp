// Picks the instruction set, once. Compiled for the baseline: it must run everywhere.
#include "../cpu/kernels.h"

namespace disco_fast {

static const Kernels& choose() {
#if defined(__x86_64__)
  const bool avx2_here = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  // F16C came before AVX2 on every processor that has it; GCC 10 cannot ask for it.
  if (avx2_here && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
    return avx512::kernels();
  }
  if (avx2_here) return avx2::kernels();
#endif
  return baseline::kernels();
}

const Kernels& best_kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace disco_fast
