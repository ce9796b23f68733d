"""The README and the docs, executed."""
