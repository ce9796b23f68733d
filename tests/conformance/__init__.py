"""One suite per contract, passed unmodified by every backend."""
