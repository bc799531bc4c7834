// The superpixel kernels' common ground: the grid, a cell's association in shared memory, and how
// the threads of a block divide a cell's features.
//
// A block works on one cell and up to 64 of its channels. A thread owns a quad, four channels, and
// a share of the cell's pixels, in runs of neighbors. Its quad meets all nine candidates of a
// pixel: 36 multiply-adds for four values and nine weights, so that arithmetic and shared memory
// stay behind DRAM.
#pragma once

#include "../cell_grid.h"
#include "common.cuh"

namespace disco_fast {

constexpr int kCellThreads = 256;
constexpr int kTile = kCellThreads;  // pixels whose association is in shared memory at a time
constexpr int kPitch = 12;           // nine weights, padded so that packs of four are aligned
constexpr int kQuad = 4;             // channels of a thread
constexpr int kMaxQuads = 16;        // of a block
constexpr int kBlockChannels = kMaxQuads * kQuad;

// How features lie in memory. kPlanar: 16 bytes of neighboring columns can be moved at once;
// kInterleaved: four neighboring channels; kScalar: any strides.
enum class Layout { kScalar, kPlanar, kInterleaved };

// Neighboring pixels that a thread works on at once: enough to have 32 to 64 bytes on their way.
template <class T, Layout L>
constexpr int kRun = L == Layout::kPlanar        ? 16 / int(sizeof(T))
                     : L == Layout::kInterleaved ? 4
                                                 : 1;

// Blocks that must fit on a multiprocessor at once, which bounds the registers of a thread: three,
// or two where a thread keeps much in flight (`deep`; one if bf16 has no instructions of its own
// and takes more registers). Doubles take twice the registers and are there to check gradients, not
// for speed.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr int kDeepBlocks = 1;
#else
constexpr int kDeepBlocks = 2;
#endif
template <class T>
constexpr int cell_blocks(bool deep) {
  return sizeof(T) == 8 ? 1 : deep ? kDeepBlocks : 3;
}

// A thread's share of a cell: `quads` x `groups` threads; quads is a power of two. Where it is
// known to nvcc, kQuads, else that is 0.
template <int kQuads>
struct Share {
  __device__ __forceinline__ explicit Share(int quads_)
      : any_quads(quads_), quad(int(threadIdx.x) % quads()), group(int(threadIdx.x) / quads()) {}

  __device__ __forceinline__ int quads() const { return kQuads > 0 ? kQuads : any_quads; }
  __device__ __forceinline__ int groups() const { return kCellThreads / quads(); }

  // The j-th channel of the thread, within the block's channels. Interleaved quads are four
  // neighbors; else neighboring threads have neighboring channels.
  template <Layout L>
  __device__ __forceinline__ int channel(int j) const {
    return L == Layout::kInterleaved ? quad * kQuad + j : j * quads() + quad;
  }

  int any_quads, quad, group;
};

// Pixel `index` of a cell as an offset in elements.
__device__ __forceinline__ int64_t pixel_offset(const View& view, int index, int cell) {
  const int y = index / cell;
  return y * view.row + (index - y * cell) * view.column;
}

// A thread's quad for one run of pixels, as it lies in memory: half types stay packed in registers.
template <class T, Layout L, int kQuads>
class Run {
 public:
  // `pixel` is the run's first pixel in the block's first channel. Channels at or beyond `channels`
  // count as zero.
  __device__ __forceinline__ void load(const T* pixel, const View& view, const Share<kQuads>& share,
                                       int channels) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      packs_[i] = {};
      const T* from = pixel + offset(view, share, i);
      if (present(share, channels, i)) packs_[i] = load_pack<kWidth>(from);
    }
  }

  // The inverse; channels at or beyond `channels` are left out.
  __device__ __forceinline__ void store(T* pixel, const View& view, const Share<kQuads>& share,
                                        int channels) const {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      if (present(share, channels, i)) store_pack(pixel + offset(view, share, i), packs_[i]);
    }
  }

  // Channel j of the quad at pixel v of the run.
  __device__ __forceinline__ T& at(int v, int j) {
    return kInterleaved ? packs_[v].value[j] : packs_[j].value[v];
  }

 private:
  // Interleaved: a pack per pixel, of the quad's channels; else a pack per channel, of the pixels.
  static constexpr bool kInterleaved = L == Layout::kInterleaved;
  static constexpr int kPacks = kInterleaved ? kRun<T, L> : kQuad;
  static constexpr int kWidth = kInterleaved ? kQuad : kRun<T, L>;

  __device__ __forceinline__ static int64_t offset(const View& view, const Share<kQuads>& share,
                                                   int i) {
    return kInterleaved ? share.template channel<L>(0) + i * view.column
                        : share.template channel<L>(i) * view.channel;
  }
  __device__ __forceinline__ static bool present(const Share<kQuads>& share, int channels, int i) {
    return share.template channel<L>(kInterleaved ? 0 : i) < channels;
  }

  Pack<T, kWidth> packs_[kPacks];
};

// The nine values of pixel `index` of the cell, as they are.
template <class T>
__device__ __forceinline__ void load_candidates(const View& association, const T* corner, int index,
                                                int cell, Wide<T>* values) {
  const T* pixel = corner + pixel_offset(association, index, cell);
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) values[slot] = widen(pixel[slot * association.channel]);
}

// Candidates outside the grid count as zero, whatever they hold.
template <class W>
__device__ __forceinline__ void drop_outside(const Grid& grid, const Cell& cell, W* values) {
#pragma unroll
  for (int slot = 0; slot < 9; ++slot) {
    if (neighbor(grid, cell.row, cell.column, slot) < 0) values[slot] = 0;
  }
}

// A pixel's nine weights, a row of kPitch: two packs and one alone. Shared memory returns 128 bytes
// a cycle, also of what all threads read, so a third pack would cost four cycles for one number.
template <class W>
__device__ __forceinline__ void store_weights(W* row, const W* values) {
#pragma unroll
  for (int i = 0; i < 8; i += kQuad) {
    Pack<W, kQuad> pack;
#pragma unroll
    for (int j = 0; j < kQuad; ++j) pack.value[j] = values[i + j];
    store_pack(row + i, pack);
  }
  row[8] = values[8];
}

template <class W>
__device__ __forceinline__ void load_weights(const W* row, W* values) {
#pragma unroll
  for (int i = 0; i < 8; i += kQuad) {
    const Pack<W, kQuad> pack = load_pack<kQuad>(row + i);
#pragma unroll
    for (int j = 0; j < kQuad; ++j) values[i + j] = pack.value[j];
  }
  values[8] = row[8];
}

// Copies the candidates' tokens, `channels` of them from `first` on, to packed[9][pitch].
template <class W>
__device__ __forceinline__ void pack_tokens(const View& tokens, const Grid& grid, const Cell& cell,
                                            int64_t first, int channels, int pitch, W* packed) {
  for (int i = threadIdx.x; i < 9 * pitch; i += blockDim.x) {
    const int slot = i / pitch, c = i % pitch;
    const int other = neighbor(grid, cell.row, cell.column, slot);
    const bool inside = other >= 0 && c < channels;
    packed[i] = inside ? *at<const W>(tokens, cell.image, first + c, other / int(grid.columns),
                                      other % int(grid.columns))
                       : W(0);
  }
}

}  // namespace disco_fast
