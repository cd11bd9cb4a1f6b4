"""Planning: from a step graph to kernels, stages and memory, without naming any op."""
