// Stacks that one OS thread switches between, known to AddressSanitizer and ThreadSanitizer.
#pragma once

#include <cstddef>

#include "emulator.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define EMU_TSAN 1
#endif
#if __has_feature(address_sanitizer)
#define EMU_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define EMU_TSAN 1
#endif
#if defined(__SANITIZE_ADDRESS__)
#define EMU_ASAN 1
#endif

#if defined(EMU_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

// ucontext works everywhere but asks the kernel for the signal mask at each switch.
#if !defined(EMU_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define EMU_UCONTEXT 1
#endif
#if defined(EMU_UCONTEXT)
#include <ucontext.h>
#endif

namespace emu {

#if defined(EMU_TSAN)
inline constexpr bool kThreadSanitizer = true;
#else
inline constexpr bool kThreadSanitizer = false;
#endif

class Fiber {
 public:
  typedef void (*Entry)();

  Fiber() = default;
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;
  ~Fiber();

  // Stands for the code that runs now, on the stack it has.
  void adopt();

  // Gets a stack of its own, on which the first switch to it calls `entry`. That calls arrive()
  // first and never returns. What an earlier start left on the stack is forgotten, not unwound.
  // `number` tells fibers apart in a report, and spreads their stacks over the cache.
  void start(Entry entry, int number);
  bool started() const { return stack_ != nullptr; }

  void arrive();
  static void switch_to(Fiber& from, Fiber& to);

 private:
  friend class ActAs;

  unsigned char* stack_ = nullptr;  // The lowest byte, above the guard page.
#if defined(EMU_UCONTEXT)
  ucontext_t context_;
#else
  void* stack_pointer_ = nullptr;
#endif
#if defined(EMU_TSAN)
  void* tsan_ = nullptr;
#endif
#if defined(EMU_ASAN)
  const void* bottom_ = nullptr;
  size_t bytes_ = 0;
  void* fake_stack_ = nullptr;
  Fiber* resumed_by_ = nullptr;
#endif
};

// What ThreadSanitizer may know about order. All that was done before a release of `word` is
// ordered before all that is done after a later acquire of it. Nothing else orders two fibers.
EMU_UNWATCHED inline void acquire([[maybe_unused]] void* word) {
#if defined(EMU_TSAN)
  __tsan_acquire(word);
#endif
}
EMU_UNWATCHED inline void release([[maybe_unused]] void* word) {
#if defined(EMU_TSAN)
  __tsan_release(word);
#endif
}

// While one lives, ThreadSanitizer takes what the caller does for what `fiber` does.
class ActAs {
 public:
#if defined(EMU_TSAN)
  EMU_UNWATCHED explicit ActAs(const Fiber& fiber) : self_(__tsan_get_current_fiber()) {
    __tsan_switch_to_fiber(fiber.tsan_, __tsan_switch_to_fiber_no_sync);
  }
  EMU_UNWATCHED ~ActAs() { __tsan_switch_to_fiber(self_, __tsan_switch_to_fiber_no_sync); }

 private:
  void* self_;
#else
  explicit ActAs(const Fiber&) {}
#endif
};

}  // namespace emu
