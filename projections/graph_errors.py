"""What can be wrong with a question to the graph, beside its store.

EventStoreError
└── GraphError
    ├── MomentError         a text that names no moment
    ├── UnknownNodeError    no such node, or several
    ├── ReadOnlyError       a raw query that would change something, or read or write files
    ├── QueryError          a raw query that the store does not understand, or that took too long
    └── TooLargeError       the answer would be too large: ask for less
"""

from ..eventstore.errors import EventStoreError


class GraphError(EventStoreError):
    """The root. Nothing was changed."""


class MomentError(GraphError):
    """A text that names no moment."""


class UnknownNodeError(GraphError):
    """There is no such node, or there are several."""


class ReadOnlyError(GraphError):
    """A raw query would change something, or read or write files."""


class QueryError(GraphError):
    """A raw query that the store does not understand, or that took too long."""


class TooLargeError(GraphError):
    """The answer would be too large."""
