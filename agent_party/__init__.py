"""Agent Party: a runtime for teams of AI agents in which the log is the system."""

__version__ = "0.1.0"

__all__ = ["__version__"]
