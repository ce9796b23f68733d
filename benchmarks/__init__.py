"""Benchmarks: compared in one run with raw parts and peers, at equal durability. See docs/benchmarks.md."""
