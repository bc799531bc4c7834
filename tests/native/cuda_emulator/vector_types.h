// CUDA's vector types, with its alignments (so that UndefinedBehaviorSanitizer sees a misaligned
// one) and their make_* functions.
#pragma once

#define EMU_VECTOR_2(name, type, alignment) \
  struct alignas(alignment) name {          \
    type x, y;                              \
  };                                        \
  constexpr name make_##name(type x, type y) { return name{x, y}; }
#define EMU_VECTOR_4(name, type, alignment) \
  struct alignas(alignment) name {          \
    type x, y, z, w;                        \
  };                                        \
  constexpr name make_##name(type x, type y, type z, type w) { return name{x, y, z, w}; }

EMU_VECTOR_2(float2, float, 8)
EMU_VECTOR_2(double2, double, 16)
EMU_VECTOR_2(int2, int, 8)
EMU_VECTOR_2(uint2, unsigned, 8)
EMU_VECTOR_2(longlong2, long long, 16)
EMU_VECTOR_4(float4, float, 16)
EMU_VECTOR_4(int4, int, 16)
EMU_VECTOR_4(uint4, unsigned, 16)
EMU_VECTOR_4(uchar4, unsigned char, 4)
EMU_VECTOR_4(short4, short, 8)
EMU_VECTOR_4(ushort4, unsigned short, 8)

#undef EMU_VECTOR_2
#undef EMU_VECTOR_4

struct uint3 {
  unsigned x, y, z;
};
constexpr uint3 make_uint3(unsigned x, unsigned y, unsigned z) { return uint3{x, y, z}; }

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned vx = 1, unsigned vy = 1, unsigned vz = 1) : x(vx), y(vy), z(vz) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return uint3{x, y, z}; }
};
