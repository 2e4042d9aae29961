"""Measurements anyone can repeat: `python -m benchmarks.NAME`. Speed is claimed here, never in tests."""
