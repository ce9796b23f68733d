"""Tests of Agent Party."""
