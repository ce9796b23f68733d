"""Implementations of the projections' contracts: memory (the reference), embedded, service."""
