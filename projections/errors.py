"""What goes wrong with a projection as a whole. A commit that cannot be projected is a dead letter, and no error.

EventStoreError
├── StoreError
│   └── SetAsideError           the projection stands still: paused, or too much of it cannot be projected
└── SchemaError
    └── NewerSchemaError
        └── NewerProjectionError  a newer program has projected what lies there
"""

from ..eventstore.errors import NewerSchemaError, StoreError


class SetAsideError(StoreError):
    """The projection stands still, and a person must do something about it."""


class NewerProjectionError(NewerSchemaError):
    """A newer program has projected what lies in the sink; this one would throw it away."""
