"""Evaluation: avg@k, pass@k and maj@k with intervals, and which benchmarks there are."""
