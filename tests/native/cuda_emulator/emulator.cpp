#include "emulator.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "fiber.h"

constinit thread_local uint3 threadIdx{}, blockIdx{};
constinit thread_local dim3 blockDim{}, gridDim{};

namespace emu {
namespace {

constexpr int kMaxWarps = 32;
constexpr int kMaxThreads = kMaxWarps * kWarpSize;

std::atomic<Order> order{Order::kAscending};
std::atomic<size_t> limit{227 << 10};
std::atomic<size_t> static_shared{0};
std::atomic<int64_t> settings{0};
std::atomic<int> processors{4};
std::atomic<int> capability{90};

// Rounds in which every thread that could run only slept: then those that sleep wait for one
// another. More than any that wait for something let pass.
constexpr int kMostIdleRounds = 10000;

bool is_block_barrier(Word word) { return word < Word::kSyncWarp; }

// Threads of a block, by warp and lane.
struct ThreadSet {
  uint32_t warps = 0;  // Those with a lane in the set.
  uint32_t lanes[kMaxWarps] = {};

  EMU_UNWATCHED bool empty() const { return warps == 0; }
  EMU_UNWATCHED void add(int warp, uint32_t some) {
    lanes[warp] |= some;
    if (some) warps |= 1u << warp;
  }
  EMU_UNWATCHED void remove(int thread) {
    const int warp = thread / kWarpSize;
    lanes[warp] &= ~(1u << thread % kWarpSize);
    if (!lanes[warp]) warps &= ~(1u << warp);
  }
  EMU_UNWATCHED bool has(int thread) const {
    return lanes[thread / kWarpSize] >> thread % kWarpSize & 1;
  }
  EMU_UNWATCHED int lowest() const {
    const int warp = __builtin_ctz(warps);
    return warp * kWarpSize + __builtin_ctz(lanes[warp]);
  }
  EMU_UNWATCHED int highest() const {
    const int warp = 31 - __builtin_clz(warps);
    return warp * kWarpSize + 31 - __builtin_clz(lanes[warp]);
  }
  // The first warp from one on, and in it the first lane from one on, both in a circle.
  EMU_UNWATCHED int next_after(unsigned first_warp, unsigned first_lane) const {
    const int warp = first_in_circle(warps, first_warp % 32);
    return warp * kWarpSize + first_in_circle(lanes[warp], first_lane % 32);
  }

 private:
  EMU_UNWATCHED static int first_in_circle(uint32_t set, unsigned first) {
    const uint32_t rotated = set >> first | set << (32 - first) % 32;
    return int((__builtin_ctz(rotated) + first) % 32);
  }
};

constexpr int kMostCopies = 96;  // Of a thread on their way; one more, and the first is made.

// Sixteen bytes on their way to shared memory.
struct alignas(16) Sixteen {
  unsigned char bytes[16];
};
struct Copy {
  Sixteen* to;
  const Sixteen* from;
  int bytes;
  int group;
};

// Watched: the accesses are the kernel's.
void make(const Copy& copy) {
  Sixteen value = {};
  if (copy.bytes > 0) value = *copy.from;
  *copy.to = value;
}

struct Thread {
  Fiber fiber;
  int number;
  uint3 index;
  // What it waits at, and its half of an exchange with its warp.
  Word word;
  unsigned mask;
  int source;
  uint64_t offered, received;
  void (*act)(void* const* lanes);
  // Lanes that must all come to one place meet at the first to come, which stays until they part.
  Thread* host;
  uint32_t guests;           // Those that have come to this lane, itself among them.
  Copy copies[kMostCopies];  // Those not made yet, in order.
  int copies_count;
  int groups;  // Committed.
};

enum class Fault { kNone, kStuck, kAsleep, kMaskWithoutCaller, kMaskNamesExited, kMismatch };

// Runs blocks, one at a time; of a cooperative grid each block has a machine of its own. Its
// fibers, their stacks and its sets are kept from one launch to the next. Functions marked
// EMU_UNWATCHED are called by CUDA threads, the others by the launching code.
class Machine {
 public:
  // Runs the blocks of the launch for which `mine` is true. False, and an error, at the first
  // fault.
  template <typename Predicate>
  bool run(const Launch& launch, Predicate mine);
  // The same in parts, for one block: begins it, and lets its threads go on until all of them wait,
  // sleep or have exited.
  void start(const Launch& launch, uint3 block);
  enum class State { kExited, kActive, kIdle, kFaulty };  // Idle: it did nothing but sleep again.
  State advance();
  void fail_asleep();
  // What went wrong, in a sentence.
  const std::string& error() const { return error_; }
  // Orders all that was run before what the caller does next.
  void finish();

  bool sync_threads(Word word, bool vote);
  void sync_warp();
  uint64_t shuffle(Word word, unsigned mask, uint64_t offered, int source);
  unsigned ballot(unsigned mask, bool vote);
  void together(void* mine, void (*act)(void* const* lanes));
  int lane() const;
  void copy_async(const Copy& copy);
  void commit_copies();
  void wait_for_copies(int under_way);
  void make_copies(int count);
  void sleep();
  unsigned char* shared_memory() const;

 private:
  void begin(const Launch& launch);
  template <typename Predicate>
  bool run_blocks(Predicate mine);
  bool run_block(uint3 block);
  void reset_block(uint3 block);
  void enter_block();
  void find_stuck();
  std::string message() const;
  std::string place_of(int thread) const;
  std::string call_of(int thread) const;

  static void thread_main();
  void run_thread();
  void exit_thread();
  void meet(Word word, unsigned mask);
  Thread& host_of(Thread& self, uint32_t waiting);
  void exchange(Word word, int warp, uint32_t mask);
  void release_lanes(int warp, uint32_t mask, void* word);
  void acquire_lanes(int warp, uint32_t mask, void* word);
  void release_all(void* word);
  void acquire_all(void* word);
  void wait();
  void resume_next(Thread& self);
  int take_ready();
  uint32_t next_random();
  void fail(Fault fault, int other);
  int warps() const;
  uint32_t lanes_of(int warp) const;

  const Launch* launch_ = nullptr;
  int count_ = 0;  // Threads of a block.
  Thread threads_[kMaxThreads];
  std::unique_ptr<unsigned char[]> memory_;
  unsigned char* shared_memory_ = nullptr;  // The same, for the threads.
  Fiber host_;

  Thread* running_ = nullptr;
  uint3 block_{};
  ThreadSet ready_;      // Those that could run; the running one is not among them.
  ThreadSet asleep_;     // Those that could, after all others.
  uint64_t events_ = 0;  // Barriers that all have come to, and exits.
  ThreadSet exited_;
  int exited_count_ = 0;
  int at_barrier_ = 0;  // Threads that have come to the barrier of the block.
  Thread* first_at_barrier_ = nullptr;
  bool vote_ = false, barrier_vote_ = false;  // Any of theirs, and any at the last barrier.
  uint32_t meeting_[kMaxWarps] = {};          // The lanes that wait for others of their warp.
  Order order_ = Order::kAscending;
  uint32_t random_ = 2463534242;

  Fault fault_ = Fault::kNone;
  int faulty_ = 0, other_ = 0;
  std::string error_;
  char begin_word_ = 0, end_word_ = 0, block_word_ = 0;
};

constinit thread_local Machine* machine = nullptr;  // The one that runs on this OS thread.

// ---- A block, as its threads see it.

// Not inlined, here and below: the fibers of a block run on one OS thread, but the next block may
// find them on another, so that the address of a thread_local must not be kept over the switch
// between.
__attribute__((noinline)) EMU_UNWATCHED void Machine::thread_main() {
  Machine& self = *machine;
  self.running_->fiber.arrive();
  for (;;) {
    self.run_thread();
    self.exit_thread();  // Returns when the next block starts this thread.
  }
}

__attribute__((noinline)) EMU_UNWATCHED void Machine::run_thread() {
  threadIdx = running_->index;
  launch_->call(launch_->parameters);
}

EMU_UNWATCHED void Machine::exit_thread() {
  Thread& self = *running_;
  exited_.add(self.number / kWarpSize, 1u << self.number % kWarpSize);
  ++exited_count_;
  ++events_;
  resume_next(self);
}

EMU_UNWATCHED void Machine::resume_next(Thread& self) {
  if (ready_.empty()) {
    Fiber::switch_to(self.fiber, host_);
  } else {
    running_ = &threads_[take_ready()];
    Fiber::switch_to(self.fiber, running_->fiber);
  }
}

EMU_UNWATCHED void Machine::wait() {
  Thread& self = *running_;
  resume_next(self);
  threadIdx = self.index;
}

EMU_UNWATCHED int Machine::take_ready() {
  int thread;
  if (order_ == Order::kAscending) {
    thread = ready_.lowest();
  } else if (order_ == Order::kDescending) {
    thread = ready_.highest();
  } else {
    const uint32_t random = next_random();
    thread = ready_.next_after(random >> 8, random >> 16);
  }
  ready_.remove(thread);
  return thread;
}

EMU_UNWATCHED uint32_t Machine::next_random() {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 17;
  random_ ^= random_ << 5;
  return random_;
}

EMU_UNWATCHED void Machine::fail(Fault fault, int other) {
  fault_ = fault;
  faulty_ = running_->number;
  other_ = other;
  Fiber::switch_to(running_->fiber, host_);
  __builtin_unreachable();
}

EMU_UNWATCHED int Machine::warps() const { return (count_ + kWarpSize - 1) / kWarpSize; }

EMU_UNWATCHED uint32_t Machine::lanes_of(int warp) const {
  const int lanes = count_ - warp * kWarpSize;
  return lanes >= kWarpSize ? ~0u : (1u << lanes) - 1;
}

EMU_UNWATCHED int Machine::lane() const { return running_->number % kWarpSize; }

EMU_UNWATCHED unsigned char* Machine::shared_memory() const { return shared_memory_; }

EMU_UNWATCHED bool Machine::sync_threads(Word word, bool vote) {
  Thread& self = *running_;
  self.word = word;
  if (at_barrier_ == 0) first_at_barrier_ = &self;
  if (first_at_barrier_->word != word) fail(Fault::kMismatch, first_at_barrier_->number);
  vote_ |= vote;
  if (++at_barrier_ < count_) {
    wait();
    return barrier_vote_;  // The next barrier cannot overwrite it: it needs this thread.
  }
  ++events_;
  barrier_vote_ = vote_;
  vote_ = false;
  at_barrier_ = 0;
  release_all(&block_word_);
  acquire_all(&block_word_);
  for (int warp = 0; warp < warps(); ++warp) ready_.add(warp, lanes_of(warp));
  ready_.remove(self.number);
  return barrier_vote_;
}

// Returns when all lanes of the mask have called it. The last of them goes on without a switch.
EMU_UNWATCHED void Machine::meet(Word word, unsigned mask) {
  Thread& self = *running_;
  const int warp = self.number / kWarpSize, first = warp * kWarpSize;
  const uint32_t me = 1u << self.number % kWarpSize;
  self.word = word;
  self.mask = mask;
  if (!(mask & me)) fail(Fault::kMaskWithoutCaller, 0);
  mask &= lanes_of(warp);  // The last warp of a block may have fewer than 32.
  const uint32_t gone = mask & exited_.lanes[warp];
  if (gone) fail(Fault::kMaskNamesExited, first + __builtin_ctz(gone));
  Thread& host = host_of(self, mask & meeting_[warp]);
  self.host = &host;
  host.guests |= me;
  meeting_[warp] |= me;
  if (host.guests != mask) return wait();
  ++events_;
  meeting_[warp] &= ~mask;
  if (word == Word::kSyncWarp) {
    release_lanes(warp, mask, &host);
    acquire_lanes(warp, mask, &host);
  } else {
    exchange(word, warp, mask);
  }
  ready_.add(warp, mask & ~me);
}

// Where lanes of `waiting` wait with the same mask, or else the thread itself. Others may wait with
// masks that overlap this one: the thread may come to them later.
EMU_UNWATCHED Thread& Machine::host_of(Thread& self, uint32_t waiting) {
  const int first = self.number / kWarpSize * kWarpSize;
  for (uint32_t rest = waiting; rest; rest &= rest - 1) {
    const Thread& other = threads_[first + __builtin_ctz(rest)];
    if (other.mask != self.mask) continue;
    if (other.word != self.word) fail(Fault::kMismatch, other.number);
    return *other.host;
  }
  self.guests = 0;
  return self;
}

// Done by the last to arrive, for all: so a lane that runs on cannot overwrite what another has
// still to read. Orders nothing: a shuffle or a vote is no fence in CUDA.
EMU_UNWATCHED void Machine::exchange(Word word, int warp, uint32_t mask) {
  Thread* const lanes = &threads_[warp * kWarpSize];
  if (word == Word::kMma) {
    void* things[kWarpSize] = {};
    for (int lane = 0; lane < kWarpSize; ++lane) {
      things[lane] = reinterpret_cast<void*>(lanes[lane].offered);
    }
    lanes[0].act(things);
    return;
  }
  const bool vote = word == Word::kBallot;
  uint64_t votes = 0;
  for (uint32_t rest = vote ? mask : 0; rest; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest);
    votes |= lanes[lane].offered << lane;
  }
  for (uint32_t rest = mask; rest; rest &= rest - 1) {
    Thread& to = lanes[__builtin_ctz(rest)];
    to.received = vote ? votes : mask >> to.source & 1 ? lanes[to.source].offered : ~uint64_t(0);
  }
}

EMU_UNWATCHED void Machine::sleep() {
  Thread& self = *running_;
  self.word = Word::kNanosleep;
  asleep_.add(self.number / kWarpSize, 1u << self.number % kWarpSize);
  wait();
}

EMU_UNWATCHED void Machine::sync_warp() { meet(Word::kSyncWarp, ~0u); }

EMU_UNWATCHED uint64_t Machine::shuffle(Word word, unsigned mask, uint64_t offered, int source) {
  Thread& self = *running_;
  self.offered = offered;
  self.source = source;
  meet(word, mask);
  return self.received;
}

EMU_UNWATCHED unsigned Machine::ballot(unsigned mask, bool vote) {
  Thread& self = *running_;
  self.offered = vote;
  meet(Word::kBallot, mask);
  return unsigned(self.received);
}

EMU_UNWATCHED void Machine::together(void* mine, void (*act)(void* const* lanes)) {
  Thread& self = *running_;
  self.offered = reinterpret_cast<uint64_t>(mine);
  self.act = act;
  meet(Word::kMma, ~0u);
}

// ---- Copies that go on while their thread does.

EMU_UNWATCHED void Machine::copy_async(const Copy& copy) {
  Thread& self = *running_;
  const bool at_once =
      order_ == Order::kAscending || (order_ == Order::kShuffled && next_random() >> 16 & 1);
  if (at_once) return make(copy);
  if (self.copies_count == kMostCopies) make_copies(1);
  self.copies[self.copies_count++] = {copy.to, copy.from, copy.bytes, self.groups};
}

// The first `count` of the running thread's.
EMU_UNWATCHED void Machine::make_copies(int count) {
  Thread& self = *running_;
  for (int i = 0; i < count; ++i) make(self.copies[i]);
  self.copies_count -= count;
  for (int i = 0; i < self.copies_count; ++i) self.copies[i] = self.copies[i + count];
}

EMU_UNWATCHED void Machine::commit_copies() { ++running_->groups; }

EMU_UNWATCHED void Machine::wait_for_copies(int under_way) {
  const Thread& self = *running_;
  int count = 0;
  while (count < self.copies_count && self.copies[count].group < self.groups - under_way) ++count;
  make_copies(count);
}

// ---- Order for ThreadSanitizer. Whoever completes a barrier acts for all, while they wait: what a
// thread does after the barrier cannot get into the order by being quick.

EMU_UNWATCHED void Machine::release_lanes(int warp, uint32_t mask, void* word) {
  for (uint32_t rest = kThreadSanitizer ? mask : 0; rest; rest &= rest - 1) {
    const ActAs one(threads_[warp * kWarpSize + __builtin_ctz(rest)].fiber);
    release(word);
  }
}

EMU_UNWATCHED void Machine::acquire_lanes(int warp, uint32_t mask, void* word) {
  for (uint32_t rest = kThreadSanitizer ? mask : 0; rest; rest &= rest - 1) {
    const ActAs one(threads_[warp * kWarpSize + __builtin_ctz(rest)].fiber);
    acquire(word);
  }
}

EMU_UNWATCHED void Machine::release_all(void* word) {
  for (int warp = 0; warp < warps(); ++warp) release_lanes(warp, lanes_of(warp), word);
}

EMU_UNWATCHED void Machine::acquire_all(void* word) {
  for (int warp = 0; warp < warps(); ++warp) acquire_lanes(warp, lanes_of(warp), word);
}

// ---- The blocks of a launch, as the launching code sees them.

template <typename Predicate>
bool Machine::run(const Launch& launch, Predicate mine) {
  begin(launch);
  const bool good = run_blocks(mine);
  machine = nullptr;
  return good;
}

void Machine::begin(const Launch& launch) {
  const dim3 block = launch.block;
  launch_ = &launch;
  memory_.reset(new unsigned char[launch.shared_bytes]);
  shared_memory_ = memory_.get();
  count_ = int(block.x * block.y * block.z);
  order_ = order;
  machine = this;
  host_.adopt();
  for (int t = 0; t < count_; ++t) {
    Thread& thread = threads_[t];
    if (!thread.fiber.started()) thread.fiber.start(thread_main, t);
    thread.number = t;
    thread.index = {t % block.x, t / block.x % block.y, t / (block.x * block.y)};
  }
  release(&begin_word_);
  acquire_all(&begin_word_);
}

template <typename Predicate>
bool Machine::run_blocks(Predicate mine) {
  const dim3 grid = launch_->grid;
  uint64_t number = 0;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        if (mine(number++) && !run_block({x, y, z})) return false;
      }
    }
  }
  return true;
}

bool Machine::run_block(uint3 block) {
  reset_block(block);
  for (int idle = 0;;) {
    const State state = advance();
    if (state == State::kExited || state == State::kFaulty) return state == State::kExited;
    idle = state == State::kIdle ? idle + 1 : 0;
    if (idle > kMostIdleRounds) return fail_asleep(), false;
  }
}

void Machine::start(const Launch& launch, uint3 block) {
  begin(launch);
  reset_block(block);
}

Machine::State Machine::advance() {
  machine = this;
  enter_block();
  const uint64_t events = events_;
  if (ready_.empty()) std::swap(ready_, asleep_);
  if (!ready_.empty()) {
    running_ = &threads_[take_ready()];
    Fiber::switch_to(host_, running_->fiber);
  }
  if (exited_count_ == count_) return State::kExited;
  if (fault_ == Fault::kNone && asleep_.empty()) find_stuck();
  if (fault_ != Fault::kNone) {
    error_ = message();
    return State::kFaulty;
  }
  return events_ == events ? State::kIdle : State::kActive;
}

void Machine::fail_asleep() {
  fault_ = Fault::kAsleep;
  faulty_ = asleep_.lowest();
  error_ = message();
}

EMU_UNWATCHED void Machine::enter_block() {
  blockIdx = block_;
  blockDim = launch_->block;
  gridDim = launch_->grid;
}

// Unwatched: it writes what the threads of the last block read, and is in no order with them.
EMU_UNWATCHED void Machine::reset_block(uint3 block) {
  block_ = block;
  ready_ = asleep_ = exited_ = ThreadSet();
  exited_count_ = at_barrier_ = 0;
  vote_ = false;
  for (int warp = 0; warp < warps(); ++warp) {
    ready_.add(warp, lanes_of(warp));
    meeting_[warp] = 0;
  }
  for (int t = 0; t < count_; ++t) {
    threads_[t].copies_count = threads_[t].groups = 0;
  }
  // Shared memory passes from the last block to this one, so they are in order here, and the memory
  // is filled between them.
  release_all(&block_word_);
  {
    const ActAs first(threads_[0].fiber);
    acquire(&block_word_);
    std::memset(shared_memory_, 0xff, launch_->shared_bytes);
    release(&block_word_);
  }
  acquire_all(&block_word_);
}

void Machine::finish() {
  release_all(&end_word_);
  acquire(&end_word_);
  if (exited_count_ < count_) {
    // The others sit at the end of their loop in thread_main(), ready for the next block.
    for (int t = 0; t < count_; ++t) {
      if (!exited_.has(t)) threads_[t].fiber.start(thread_main, t);
    }
  }
  fault_ = Fault::kNone;
  memory_.reset();
}

// ---- What went wrong.

// No thread can run and some have not exited: finds one that waits, and one that it waits for.
void Machine::find_stuck() {
  fault_ = Fault::kStuck;
  faulty_ = 0;
  while (exited_.has(faulty_)) ++faulty_;
  const Thread& thread = threads_[faulty_];
  other_ = 0;
  if (is_block_barrier(thread.word)) {
    while (!exited_.has(other_) && is_block_barrier(threads_[other_].word)) ++other_;
  } else {
    const int warp = faulty_ / kWarpSize;
    const uint32_t absent = thread.mask & lanes_of(warp) & ~thread.host->guests;
    other_ = warp * kWarpSize + __builtin_ctz(absent);
  }
}

std::string text_of(uint3 v) {
  char text[40];
  std::snprintf(text, sizeof text, "(%u,%u,%u)", v.x, v.y, v.z);
  return text;
}

std::string Machine::place_of(int thread) const {
  return "thread " + text_of(threads_[thread].index);
}

std::string Machine::call_of(int thread) const {
  static const char* const kNames[] = {"__syncthreads", "__syncthreads_or", "__syncwarp",
                                       "__shfl_sync",   "__shfl_xor_sync",  "__ballot_sync",
                                       "mma.sync",      "__nanosleep"};
  const std::string name = kNames[int(threads_[thread].word)];
  if (is_block_barrier(threads_[thread].word) || threads_[thread].word == Word::kNanosleep) {
    return name + "()";
  }
  char mask[16];
  std::snprintf(mask, sizeof mask, "(0x%08x)", threads_[thread].mask);
  return name + mask;
}

std::string Machine::message() const {
  const std::string start = "block " + text_of(block_) + ", " + place_of(faulty_);
  const std::string call = call_of(faulty_), other = place_of(other_);
  switch (fault_) {
    case Fault::kAsleep:
      return start + " waits in a loop with " + call + " for what nobody does";
    case Fault::kMaskWithoutCaller:
      return start + " calls " + call + " with a mask that does not name itself";
    case Fault::kMaskNamesExited:
      return start + " calls " + call + " with a mask that names " + other + ", which has exited";
    case Fault::kMismatch:
      return start + " calls " + call + " where " + other + " waits at " + call_of(other_);
    default:
      return start + " waits at " + call + " for " + other +
             (exited_.has(other_) ? ", which has exited" : ", which waits at " + call_of(other_));
  }
}

// ---- Launches.

struct Kernel {
  size_t allowed_shared_bytes = 0;  // Of dynamic memory; as much as without asking if less.
  unsigned launches = 0;            // Of several blocks.
};

std::mutex kernels_mutex;
std::map<const void*, Kernel> kernels;  // By address.

thread_local std::string launch_failure;  // The last one, in a sentence.

// Most dynamic shared memory of a block. What may be had without asking, and what there is at all,
// count static memory in.
size_t allowed_bytes(const Kernel& kernel) {
  const size_t own = static_shared, without_asking = kDefaultSharedMemory;
  const size_t asked = std::max(kernel.allowed_shared_bytes + own, without_asking);
  return std::min(asked, limit.load()) - std::min({own, asked, limit.load()});
}

uint64_t blocks_of(const Launch& launch) {
  return uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z;
}

// What was known of the kernel before this launch.
Kernel note(const Launch& launch) {
  const std::lock_guard<std::mutex> lock(kernels_mutex);
  Kernel& kernel = kernels[launch.kernel];
  const Kernel before = kernel;
  kernel.launches += blocks_of(launch) > 1;
  return before;
}

bool valid(dim3 grid, dim3 block) {
  return block.x && block.y && block.z && block.x <= 1024 && block.y <= 1024 && block.z <= 64 &&
         block.x * block.y * block.z <= kMaxThreads && grid.x && grid.y && grid.z &&
         grid.x <= 0x7fffffff && grid.y <= 0xffff && grid.z <= 0xffff;
}

// ThreadSanitizer is to see no order between two blocks, but a fiber never loses the order it once
// got, and new fibers for each block are too slow (0.5 ms for each, with GCC 12's). So the blocks
// are dealt to two machines, which know nothing of each other, by one bit of their number: at the
// first launch of a kernel the lowest, so that neighbors are apart, then the next higher at each
// launch. After log2(blocks) launches any two blocks were apart once.
bool run_apart(const Launch& launch, unsigned earlier_launches, Machine& zeros, Machine& ones) {
  const uint64_t blocks = blocks_of(launch);
  const unsigned bit = earlier_launches % unsigned(std::max(1, int(std::bit_width(blocks - 1))));
  bool good = zeros.run(launch, [bit](uint64_t block) { return !(block >> bit & 1); });
  if (!good) launch_failure = zeros.error();
  if (good && blocks > 1) {
    // On an OS thread of its own, because static shared memory is a thread_local.
    std::thread([&] {
      good = ones.run(launch, [bit](uint64_t block) { return block >> bit & 1; });
    }).join();
    if (!good) launch_failure = ones.error();
    ones.finish();
  }
  zeros.finish();  // Not before the others have run: they would be in order with these.
  return good;
}

bool run_in_turn(const Launch& launch, Machine& all) {
  const bool good = all.run(launch, [](uint64_t) { return true; });
  if (!good) launch_failure = all.error();
  all.finish();
  return good;
}

uint3 block_number(dim3 grid, uint64_t number) {
  return {unsigned(number % grid.x), unsigned(number / grid.x % grid.y),
          unsigned(number / grid.x / grid.y)};
}

// All blocks of a cooperative grid in turns, each with its own fibers, so that two blocks are in
// order only where they see to it.
bool run_together(const Launch& launch, std::vector<std::unique_ptr<Machine>>& machines) {
  const size_t blocks = size_t(blocks_of(launch));
  while (machines.size() < blocks) machines.push_back(std::make_unique<Machine>());
  for (size_t b = 0; b < blocks; ++b) machines[b]->start(launch, block_number(launch.grid, b));
  std::vector<bool> running(blocks, true);
  const Machine* faulty = nullptr;
  Machine* asleep = nullptr;
  for (int idle = 0; idle >= 0 && faulty == nullptr;) {
    bool active = false;
    asleep = nullptr;
    for (size_t b = 0; b < blocks && faulty == nullptr; ++b) {
      if (!running[b]) continue;
      const Machine::State state = machines[b]->advance();
      running[b] = state != Machine::State::kExited;
      active |= state != Machine::State::kIdle;
      if (running[b]) asleep = machines[b].get();
      if (state == Machine::State::kFaulty) faulty = machines[b].get();
    }
    idle = asleep == nullptr ? -1 : active ? 0 : idle + 1;
    if (idle > kMostIdleRounds) {
      asleep->fail_asleep();
      faulty = asleep;
    }
  }
  machine = nullptr;
  if (faulty != nullptr) launch_failure = faulty->error();
  for (size_t b = 0; b < blocks; ++b) machines[b]->finish();
  return faulty == nullptr;
}

bool run(const Launch& launch, unsigned earlier_launches) {
  if (launch.cooperative) {
    thread_local std::vector<std::unique_ptr<Machine>> machines;
    return run_together(launch, machines);
  }
  thread_local const auto own = std::make_unique<Machine>();
  if (!kThreadSanitizer) return run_in_turn(launch, *own);
  thread_local const auto other = std::make_unique<Machine>();
  return run_apart(launch, earlier_launches, *own, *other);
}

}  // namespace

cudaError_t launch(const Launch& launch) {
  if (!valid(launch.grid, launch.block)) return cudaErrorInvalidConfiguration;
  const Kernel kernel = note(launch);
  if (launch.shared_bytes > allowed_bytes(kernel)) return cudaErrorInvalidValue;
  if (launch.cooperative && blocks_of(launch) > uint64_t(processors)) {
    return cudaErrorCooperativeLaunchTooLarge;
  }
  try {
    return run(launch, kernel.launches) ? cudaSuccess : cudaErrorLaunchFailure;
  } catch (const std::bad_alloc&) {
    return cudaErrorMemoryAllocation;
  }
}

cudaError_t allow_shared_memory(const void* kernel, int bytes) {
  ++settings;
  if (bytes < 0 || size_t(bytes) + static_shared > limit) return cudaErrorInvalidValue;
  const std::lock_guard<std::mutex> lock(kernels_mutex);
  kernels[kernel].allowed_shared_bytes = size_t(bytes);
  return cudaSuccess;
}

size_t allowed_shared_memory(const void* kernel) {
  const std::lock_guard<std::mutex> lock(kernels_mutex);
  return allowed_bytes(kernels[kernel]);
}

const char* describe(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "no error";
    case cudaErrorInvalidValue:
      return "invalid argument";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorInvalidConfiguration:
      return "invalid configuration argument";
    case cudaErrorInvalidDevice:
      return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorCooperativeLaunchTooLarge:
      return "too many blocks in cooperative launch";
    case cudaErrorLaunchFailure:
      return launch_failure.empty() ? "unspecified launch failure" : launch_failure.c_str();
  }
  return "unrecognized error code";
}

void set_order(Order new_order) { order = new_order; }
void set_shared_memory_limit(size_t bytes) { limit = bytes; }
size_t shared_memory_limit() { return limit; }
void set_static_shared_memory(size_t bytes) { static_shared = bytes; }
size_t static_shared_memory() { return static_shared; }
int64_t allowances() { return settings; }
void set_multiprocessors(int count) { processors = count; }
int multiprocessors() { return processors; }
void set_architecture(int architecture) { capability = architecture; }
int architecture() { return capability; }

namespace {
const char* const without = std::getenv("EMULATED_WITHOUT");
}

EMU_UNWATCHED bool left_out(const char* file, int line) {
  if (without == nullptr) return false;
  const char* slash = std::strrchr(file, '/');
  const char* name = slash == nullptr ? file : slash + 1;
  const size_t length = std::strlen(name);
  return std::strncmp(without, name, length) == 0 && without[length] == ':' &&
         std::atoi(without + length + 1) == line;
}

// ---- The words.

EMU_UNWATCHED unsigned char* dynamic_shared_memory() { return machine->shared_memory(); }
EMU_UNWATCHED bool sync_threads(Word word, bool vote) { return machine->sync_threads(word, vote); }
EMU_UNWATCHED void sync_warp() { machine->sync_warp(); }
EMU_UNWATCHED uint64_t shuffle(Word word, unsigned mask, uint64_t offered, int source) {
  return machine->shuffle(word, mask, offered, source);
}
EMU_UNWATCHED unsigned ballot(unsigned mask, bool vote) { return machine->ballot(mask, vote); }
EMU_UNWATCHED void together(void* mine, void (*act)(void* const* lanes)) {
  machine->together(mine, act);
}
EMU_UNWATCHED void copy_async(void* to, const void* from, int bytes) {
  machine->copy_async({static_cast<Sixteen*>(to), static_cast<const Sixteen*>(from), bytes, 0});
}
EMU_UNWATCHED void commit_copies() { machine->commit_copies(); }
EMU_UNWATCHED void wait_for_copies(int under_way) { machine->wait_for_copies(under_way); }
EMU_UNWATCHED int lane() { return machine->lane(); }
EMU_UNWATCHED void sleep() { machine->sleep(); }

EMU_UNWATCHED void fence() {
  static char word;
  acquire(&word);
  release(&word);
}

}  // namespace emu
