"""Planted bugs: for each feature of docs/features.md one, and the test that must fail with it. `make mutants`."""
