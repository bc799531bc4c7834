// Anchor of a cluster: argmax over superpixels of (in the cluster) + 0.01 * size, the first
// maximum.
#pragma once

#include "cells.h"

namespace disco_fast::DISCO_FAST_ISA {

template <class W>
inline void select_image(const SelectArgs& a, int64_t image) {
  const int64_t* labels = a.labels + image * a.points;
  const W* sizes = static_cast<const W*>(a.sizes) + image * a.points;
  for (int64_t k = 0; k < a.clusters; ++k) {
    int64_t anchor = 0;
    W best = -1;
    for (int64_t p = 0; p < a.points; ++p) {
      // Two roundings, as in the specification: a fused multiply-add could break a tie.
      const volatile W bonus = sizes[p] * W(0.01);
      const W score = W(labels[p] == k) + bonus;
      if (score > best) {
        best = score;
        anchor = p;
      }
    }
    a.anchors[image * a.clusters + k] = anchor;
  }
}

inline void select_images(const SelectArgs& a, int64_t begin, int64_t end) {
  with_wide_element(a.element, [&](auto w) {
    for (int64_t image = begin; image < end; ++image) select_image<decltype(w)>(a, image);
  });
}

}  // namespace disco_fast::DISCO_FAST_ISA
