"""Tests that need no service and no Ray."""
