// Vectors of L numbers in the compiler's own vector extension: one source for every instruction
// set.
#pragma once

#include <cstdint>
#include <cstring>

namespace disco_fast::DISCO_FAST_ISA {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class T, int L>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * L)));
};
template <class T>
struct VectorOf<T, 1> {
  typedef T type;
};
template <class T, int L>
using Vector = typename VectorOf<T, L>::type;

template <class T>
constexpr int kLanes = kVectorBytes / int(sizeof(T));

// Integers as wide as W, as comparisons of vectors give.
template <class W>
struct IndexOf {
  typedef int32_t type;
};
template <>
struct IndexOf<double> {
  typedef int64_t type;
};
template <class W>
using Index = typename IndexOf<W>::type;

template <int L, class T>
inline Vector<T, L> load(const T* from) {
  Vector<T, L> value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

template <int L, class T>
inline void store(T* to, const Vector<T, L>& value) {
  std::memcpy(to, &value, sizeof(value));
}

template <class T, int L>
inline Vector<T, L> broadcast(T value) {
  return value - Vector<T, L>{};  // minus, for 0 + x is not x where x is -0, and would be computed
}

// Sum of the lanes, in halves: a fixed order.
template <class T, int L>
inline T sum(const Vector<T, L>& value) {
  if constexpr (L == 1) {
    return value;
  } else {
    T lanes[L];
    std::memcpy(lanes, &value, sizeof(value));
    Vector<T, L / 2> low, high;
    std::memcpy(&low, lanes, sizeof(low));
    std::memcpy(&high, lanes + L / 2, sizeof(high));
    return sum<T, L / 2>(low + high);
  }
}

}  // namespace disco_fast::DISCO_FAST_ISA
