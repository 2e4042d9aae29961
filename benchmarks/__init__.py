"""Benchmarks anyone can run: ratios from one run on one machine."""
