"""The critic: reread a cited file from disk and see whether the quotation stands at that very line."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from .answer import Citation
from .corpus import MAX_BYTES, decode, read_bytes
from .errors import DocsMissingError, OutsideDocsError
from .passages import LONG_LINE, pieces_of, source_lines, visible_lines

_SHOWN = 120


class Verdict(msgspec.Struct, frozen=True):
    """Whether a citation holds, and if not, why."""

    holds: bool
    reason: str = ""


def verify_citation(docs: Path, citation: Citation) -> Verdict:
    """Whether `citation.quote` is the text of the file at `citation.line`, by the file's bytes of this moment.

    A quotation is whole lines, blank space at either end aside; leaving out the beginning of a line could turn its
    meaning round. Only of a line longer than `LONG_LINE` may it be a part, between words. Of HTML it may be the lines
    as they stand in the source, or as a reader sees them. Every other citation gets a verdict, never an exception; only
    a missing folder raises `DocsMissingError`.
    """
    if not docs.is_dir():
        raise DocsMissingError(f"{docs} is not a folder. Give the folder the citations were taken from.")
    try:
        data = read_bytes(docs, citation.path)
        text = decode(citation.path, data)
    except OutsideDocsError as error:
        return Verdict(False, str(error))
    except (OSError, ValueError) as error:
        return Verdict(False, f"{citation.path} cannot be reread: {error}")
    if len(data) > MAX_BYTES:
        return Verdict(False, f"{citation.path} is larger than {MAX_BYTES} bytes")
    quote = citation.quote.strip()
    if not re.search(r"\w", quote):
        return Verdict(False, "the quotation holds no word")
    shown = visible_lines(citation.path, text)
    if _stands(quote, citation.line, shown) or _stands(quote, citation.line, source_lines(text)):
        return Verdict(True)
    return Verdict(False, _what_stands(quote, citation, shown))


def plant_false(citation: Citation) -> Citation:
    """A citation that looks like this one and is false, to show that the critic rejects it.

    The quotation is turned round or altered in one place. Deterministic.
    """
    quote = citation.quote.strip()
    for pattern, falsehood in _FALSEHOODS:
        altered = re.sub(pattern, falsehood, quote, count=1)
        if altered != quote:
            return msgspec.structs.replace(citation, quote=altered)
    return msgspec.structs.replace(citation, quote=f"{quote} not")


# From the most to the least harmful to a reader who believes it.
_FALSEHOODS: tuple[tuple[str, str], ...] = (
    (r"\b(is|are|will|can|should|must|may|does|do) not\b", r"\1"),
    (r"\b(is|are|will|can|should|must|may|does)\b", r"\1 not"),
    (r"\bTrue\b", "False"),
    (r"\bNone\b", "True"),
    (r"\d\b", "77"),
    (r"(?<=\w) (?=\w)", " never "),
)


def _stands(quote: str, line: int, lines: list[str]) -> bool:
    """Whether the quotation is the text at a 1-based line."""
    if line < 1:
        return False
    stands = "\n".join(lines[line - 1 : line + quote.count("\n")]).strip()
    return quote == stands or ("\n" not in quote and len(stands) > LONG_LINE and _between_words(quote, stands))


def _between_words(quote: str, line: str) -> bool:
    """Whether the quotation is part of a line, cut at spaces, or as the librarian cuts where there are none."""
    return re.search(rf"(?<!\S){re.escape(quote)}(?!\S)", line) is not None or quote in pieces_of(line)


def _what_stands(quote: str, citation: Citation, lines: list[str]) -> str:
    """Why a quotation was rejected: where it stands instead, or what stands in its place."""
    place = f"{citation.path}:{citation.line}"
    if not 1 <= citation.line <= len(lines):
        return f"{place} does not exist; the file has {len(lines)} lines"
    for number in range(1, len(lines) + 1):
        if _stands(quote, number, lines):
            return f"the quotation stands at line {number}, not at {place}"
    found = "\n".join(lines[citation.line - 1 : citation.line + quote.count("\n")]).strip()
    return f"at {place} stands {found[:_SHOWN]!r}, not the quotation"
