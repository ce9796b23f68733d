"""Crashes, power cuts, tampering and races."""
