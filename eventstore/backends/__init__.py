"""Implementations of the contracts, one file each: memory (the reference, read first), embedded, service."""
