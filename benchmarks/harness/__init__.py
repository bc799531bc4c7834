"""What the benchmarks share: clocks, inputs, opponents and the form of a report."""

SIZE, N_ANCHORS = 256, 8  # side of an image and anchors, as in the paper
