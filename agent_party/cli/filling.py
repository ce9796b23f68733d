"""Filling in an approval's form at a terminal, or reading the answer from the command line."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from .output import safe

if TYPE_CHECKING:
    from rich.console import Console

Reader = Callable[[], Any]
LEFT_OUT: Any = msgspec.UNSET


def from_json(text: str) -> Any:
    """The value of ``--answer``; `InputError` if it is not JSON."""
    from ..actors.errors import InputError

    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InputError(f"--answer is not JSON: {error}") from error


async def fill_in(form: dict[str, Any], out: "Console", read: Reader) -> Any:
    """What the person at the terminal answers, field by field, each asked again until it fits; `LEFT_OUT` if the
    input ended before."""
    from ..actors.forms import described, misfit, resolved

    whole = resolved(form, form)
    fields = whole.get("properties")
    if not fields:
        return await _one("answer", form, form, out, read, described(form, form))
    given: dict[str, Any] = {}
    for name, part in fields.items():
        if "const" in part:
            given[name] = part["const"]
            continue
        needed = name in whole.get("required", ())
        value = await _one(name, part, form, out, read, described(part, form), needed=needed)
        if value is LEFT_OUT and needed:
            return LEFT_OUT
        if value is not LEFT_OUT:
            given[name] = value
    if wrong := misfit(given, form):
        out.print(safe(wrong))
        return LEFT_OUT
    return given


async def _one(
    name: str,
    part: dict[str, Any],
    form: dict[str, Any],
    out: "Console",
    read: Reader,
    asked: str,
    *,
    needed: bool = True,
) -> Any:
    from ..actors.forms import misfit

    choice = "" if needed else f"; {part['default']!r} if left out" if "default" in part else "; may be left out"
    while True:
        out.print(safe(f"{name} ({asked}{choice}): "), end="", style="bold")
        text = await read()
        if not text or (not text.strip() and not needed):
            return LEFT_OUT
        value = as_typed(text.rstrip("\n"), part, form)
        wrong = misfit(value, {**part, "$defs": form.get("$defs", {})})
        if not wrong:
            return value
        out.print(safe(wrong.replace("the answer", name, 1)))


def as_typed(text: str, part: dict[str, Any], form: dict[str, Any]) -> Any:
    """A value as it was typed: JSON where it is JSON that fits, else text."""
    from ..actors.forms import misfit

    whole = {**part, "$defs": form.get("$defs", {})}
    if not misfit(text, whole):
        return text
    words: dict[str, Any] = {"y": True, "yes": True, "n": False, "no": False}
    if not misfit(True, whole) and text.strip().lower() in words:
        return words[text.strip().lower()]
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError):
        return text
