"""Logs made for tests: good ones, bad ones, and what must be said of them."""
