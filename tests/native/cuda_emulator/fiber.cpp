#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <new>

#if defined(EMU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// void emu_switch_stacks(void** from, void* to): leaves the stack pointer of the code that runs in
// *from and goes on with the code whose stack pointer `to` is. To the compiler it is a call, so
// only what a called function must preserve is saved, on the stack that is left. The modes of the
// floating-point unit are not: kernels do not change them.
#if defined(EMU_UCONTEXT)
#elif defined(__x86_64__)
asm(R"(
  .text
  .hidden emu_switch_stacks
  .globl emu_switch_stacks
  .type emu_switch_stacks, @function
  .p2align 4
emu_switch_stacks:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size emu_switch_stacks, . - emu_switch_stacks
)");
#else
asm(R"(
  .text
  .hidden emu_switch_stacks
  .globl emu_switch_stacks
  .type emu_switch_stacks, %function
  .p2align 4
emu_switch_stacks:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size emu_switch_stacks, . - emu_switch_stacks
)");
#endif

namespace emu {
namespace {

#if defined(EMU_TSAN) || defined(EMU_ASAN)
constexpr size_t kStackBytes = 256 << 10;  // Instrumented frames are larger.
#else
constexpr size_t kStackBytes = 64 << 10;
#endif

size_t page_bytes() { return size_t(sysconf(_SC_PAGESIZE)); }

// A stack that is overrun ends at a page that cannot be touched.
unsigned char* allocate_stack() {
  const size_t guard = page_bytes();
  void* memory = mmap(nullptr, guard + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, guard, PROT_NONE);
  return static_cast<unsigned char*>(memory) + guard;
}

// Frames that were never left are still marked in AddressSanitizer's map.
void forget([[maybe_unused]] unsigned char* stack) {
#if defined(EMU_ASAN)
  __asan_unpoison_memory_region(stack, kStackBytes);
#endif
}

// Stacks lie a multiple of the page size apart, so that without this the hot ends of all of them
// would fall into the same few sets of the first-level cache.
size_t cache_color(int number) { return size_t(number % 32) * 128; }

}  // namespace

#if !defined(EMU_UCONTEXT)
extern "C" void emu_switch_stacks(void** from, void* to);

namespace {

// What emu_switch_stacks() expects to find on a stack that it goes on with, here with zeros in the
// registers (a zero frame pointer ends a backtrace) and `entry` as the place to return to.
void* first_frame(unsigned char* top, Fiber::Entry entry) {
#if defined(__x86_64__)
  constexpr size_t kWords = 8, kReturn = 6;  // The last word is the return address of `entry`.
#else
  constexpr size_t kWords = 20, kReturn = 11;
#endif
  uintptr_t* frame = reinterpret_cast<uintptr_t*>(top) - kWords;
  for (size_t i = 0; i < kWords; ++i) frame[i] = 0;
  frame[kReturn] = reinterpret_cast<uintptr_t>(entry);
  return frame;
}

}  // namespace
#endif

Fiber::~Fiber() {
  if (!started()) return;
#if defined(EMU_TSAN)
  __tsan_destroy_fiber(tsan_);
#endif
  forget(stack_);
  munmap(stack_ - page_bytes(), page_bytes() + kStackBytes);
}

void Fiber::adopt() {
#if defined(EMU_TSAN)
  tsan_ = __tsan_get_current_fiber();
#endif
}

void Fiber::start(Entry entry, int number) {
#if defined(EMU_TSAN)
  if (started()) __tsan_destroy_fiber(tsan_);
  tsan_ = __tsan_create_fiber(0);
  char name[32];
  std::snprintf(name, sizeof name, "CUDA thread %d", number);
  __tsan_set_fiber_name(tsan_, name);
#endif
  if (!started()) stack_ = allocate_stack();
  forget(stack_);
#if defined(EMU_ASAN)
  bottom_ = stack_;
  bytes_ = kStackBytes;
  fake_stack_ = nullptr;
#endif
  const size_t bytes = kStackBytes - cache_color(number);
#if defined(EMU_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = bytes;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  stack_pointer_ = first_frame(stack_ + bytes, entry);
#endif
}

__attribute__((no_sanitize("address"))) EMU_UNWATCHED void Fiber::arrive() {
#if defined(EMU_ASAN)
  // Also tells how far the stack of the fiber that was left extends: of an adopted one only
  // AddressSanitizer knows.
  __sanitizer_finish_switch_fiber(fake_stack_, &resumed_by_->bottom_, &resumed_by_->bytes_);
#endif
}

__attribute__((no_sanitize("address"))) EMU_UNWATCHED void Fiber::switch_to(Fiber& from,
                                                                            Fiber& to) {
#if defined(EMU_ASAN)
  to.resumed_by_ = &from;
  __sanitizer_start_switch_fiber(&from.fake_stack_, to.bottom_, to.bytes_);
#endif
#if defined(EMU_TSAN)
  __tsan_switch_to_fiber(to.tsan_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(EMU_UCONTEXT)
  swapcontext(&from.context_, &to.context_);
#else
  emu_switch_stacks(&from.stack_pointer_, to.stack_pointer_);
#endif
  from.arrive();
}

}  // namespace emu
