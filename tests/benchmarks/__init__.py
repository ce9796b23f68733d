"""The benchmarks run, and verify their data."""
