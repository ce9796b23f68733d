"""A program's own types on their way to a host, by value: what cloudpickle would lose of them.

It makes a class first and sets its attributes afterwards. A `msgspec.Struct` has the fields it was made with, so one
that only the program knows would arrive with none, and every instance of it be empty. And `msgspec.Meta`, which says
what a field may be, has no pickle at all.
"""

import copyreg
import inspect
import io
import pickle
import sys
import uuid
from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

import msgspec
from ray import cloudpickle

_StructMeta: Any = type(msgspec.Struct)
_Base: Any = cloudpickle.Pickler
_META = (
    "gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz", "title", "description",
    "examples", "extra_json_schema", "extra",
)  # fmt: skip
_CONFIG = (
    "array_like", "cache_hash", "dict", "eq", "forbid_unknown_fields", "frozen", "gc", "omit_defaults", "order",
    "repr_omit_defaults", "tag", "tag_field", "weakref",
)  # fmt: skip
_GIVEN = {"__module__", "__annotations__", "__doc__", "__slots__", "__qualname__", "__dict__", "__weakref__"}
_AFTER = "__party_post_init__"
_names: "WeakKeyDictionary[type, str]" = WeakKeyDictionary()
_types: "WeakValueDictionary[str, type]" = WeakValueDictionary()


class Sent:
    """Something to be given to Ray: it arrives as itself, with all that its types have."""

    def __init__(self, thing: Any) -> None:
        self.thing = thing

    def __reduce__(self) -> tuple[Callable[[bytes], Any], tuple[bytes]]:
        return loads, (dumps(self.thing),)


def dumps(thing: Any) -> bytes:
    """Pickled, types that only this program knows by value."""
    with io.BytesIO() as file:
        _Pickler(file).dump(thing)
        return file.getvalue()


def loads(data: bytes) -> Any:
    """What was pickled. A type that has been here before is the same."""
    return pickle.loads(data)


class _Pickler(_Base):  # type: ignore[misc] # it is not typed
    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, _StructMeta) and not _can_be_imported(thing):
            return _taken_apart(thing)
        return super().reducer_override(thing)


def _limits(meta: msgspec.Meta) -> tuple[Any, ...]:
    return _meta, ({name: value for name in _META if (value := getattr(meta, name)) is not None},)


def _meta(fields: dict[str, Any]) -> msgspec.Meta:
    return msgspec.Meta(**fields)


copyreg.pickle(msgspec.Meta, _limits)


def _can_be_imported(struct: type) -> bool:
    found: Any = sys.modules.get(struct.__module__) if struct.__module__ != "__main__" else None
    for name in struct.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is struct


def _taken_apart(struct: Any) -> tuple[Any, ...]:
    """How to make it with its fields, and what to set on it then: methods may speak of the type itself."""
    if struct not in _names:
        _names[struct] = uuid.uuid4().hex
        _types[_names[struct]] = struct
    own, parameters = vars(struct), inspect.signature(struct).parameters
    annotated = own.get("__annotations__", {})
    fields = [one for one in msgspec.structs.fields(struct) if one.name in own or one.name in annotated]
    options = {name: getattr(struct.__struct_config__, name) for name in _CONFIG}
    options["kw_only"] = any(parameters[one.name].kind is inspect.Parameter.KEYWORD_ONLY for one in fields)
    about = {name: own.get(name) for name in ("__doc__", "__module__")} | {"__qualname__": struct.__qualname__}
    names = {one.name for one in fields} | _GIVEN
    attributes = {
        name: value
        for name, value in own.items()
        if name not in names and not name.startswith("__struct_") and not isinstance(value, MemberDescriptorType)
    }
    made = (_names[struct], struct.__name__, struct.__bases__, [_field(one) for one in fields], options, about)
    return _put_together, (*made, "__post_init__" in own), attributes, None, None, _filled


def _field(one: msgspec.structs.FieldInfo) -> tuple[str, Any, dict[str, Any]]:
    given = {"name": one.encode_name if one.encode_name != one.name else None}
    defaults = {"default": one.default, "default_factory": one.default_factory}
    return one.name, one.type, given | {k: value for k, value in defaults.items() if value is not msgspec.NODEFAULT}


def _put_together(
    name: str,
    called: str,
    bases: tuple[type, ...],
    fields: list[tuple[str, Any, dict[str, Any]]],
    options: dict[str, Any],
    about: dict[str, Any],
    after: bool,
) -> type:
    if name not in _types:
        namespace = about | ({"__post_init__": _post_init} if after else {})
        listed = [(field, kind, msgspec.field(**given)) for field, kind, given in fields]
        made = msgspec.defstruct(called, listed, bases=bases, namespace=namespace, **options)
        _names[made], _types[name] = name, made
    return _types[name]


def _post_init(self: Any) -> None:
    getattr(self, _AFTER)()


def _filled(struct: type, attributes: dict[str, Any]) -> None:
    for name, value in attributes.items():
        setattr(struct, _AFTER if name == "__post_init__" else name, value)
