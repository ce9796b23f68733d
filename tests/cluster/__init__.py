"""Tests on a running Ray."""
