"""What code that is sent to a host may hold and pickle does not know: the limits in a type's annotations.

A program's own types go to Ray by value, and `msgspec.Meta`, which says what a form's field may be, has no pickle.
"""

import copyreg
from typing import Any

import msgspec

_FIELDS = (
    "gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz", "title", "description",
    "examples", "extra_json_schema", "extra",
)  # fmt: skip


def teach() -> None:
    """Let every pickler of this process take it; doing so again changes nothing."""
    copyreg.pickle(msgspec.Meta, _reduced)


def _reduced(meta: msgspec.Meta) -> tuple[Any, ...]:
    return _made, ({name: value for name in _FIELDS if (value := getattr(meta, name)) is not None},)


def _made(fields: dict[str, Any]) -> msgspec.Meta:
    return msgspec.Meta(**fields)
