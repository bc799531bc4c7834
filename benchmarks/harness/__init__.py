"""What the benchmarks share: clocks, inputs, opponents and the form of a report."""
