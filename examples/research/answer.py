"""Composing a report from what the index found. The default composes from quotations alone and needs no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from .index import Hit, terms

MAX_CITATIONS = 6
MIN_CITATIONS = 3
MAX_QUOTED_LINES = 6


class Citation(msgspec.Struct, frozen=True):
    """A verbatim quotation of consecutive lines of a file; `line` is the 1-based number of the first.

    For HTML the lines are those a reader sees: without tags. Blank space at either end of the quotation is left out.
    """

    path: str
    line: int
    quote: str


class Report(msgspec.Struct, frozen=True):
    """An answer and what it stands on. `composer` names who composed it; `answer` is Markdown."""

    question: str
    answer: str
    citations: list[Citation]
    composer: str


class Composer(Protocol):
    """Whatever turns a question and the passages found for it into a report.

    Every citation's quotation stands verbatim in one of the hits. With hits there are at least `MIN_CITATIONS`
    citations if the hits have so many lines; without, there is a report that says so and cites nothing.
    """

    def __call__(self, question: str, hits: Sequence[Hit]) -> Report: ...


def compose(question: str, hits: Sequence[Hit]) -> Report:
    """The extractive composer: the passages themselves, each cut to the lines that speak to the question."""
    citations = cite(question, hits)
    if not citations:
        return nothing_found(question, "extractive")
    best = citations[0]
    files = list(dict.fromkeys(citation.path for citation in citations))
    answer = f"The closest passage stands in `{best.path}` at line {best.line}."
    if len(files) > 1:
        answer += f" Read on in {', '.join(f'`{path}`' for path in files[1:])}."
    return Report(question, answer, citations, "extractive")


def nothing_found(question: str, composer: str) -> Report:
    """The report when no passage shares a word with the question."""
    return Report(question, "No document has a passage on this. Try other words, or another folder.", [], composer)


def cite(question: str, hits: Sequence[Hit]) -> list[Citation]:
    """Quotations from the best hits, at least `MIN_CITATIONS` whenever their lines suffice."""
    citations = [_quote(question, hit) for hit in hits[:MAX_CITATIONS]]
    if 0 < len(citations) < MIN_CITATIONS:
        # Too few passages: quote them line by line.
        lines = [Citation(hit.path, *numbered) for hit in hits for numbered in _said_lines(hit)]
        citations = lines[:MAX_CITATIONS] if len(lines) > len(citations) else citations
    # Passages of one file are read together; the file of the best passage comes first.
    order = {path: place for place, path in reversed(list(enumerate(citation.path for citation in citations)))}
    return sorted(dict.fromkeys(citations), key=lambda citation: order[citation.path])


def render(report: Report) -> str:
    """The report as Markdown: the question, the answer, and each quotation under its place."""
    parts = [f"# {report.question}", report.answer]
    if report.citations:
        parts.append("## Sources")
    for number, citation in enumerate(report.citations, start=1):
        fence = "```"
        while fence in citation.quote:
            fence += "`"
        language = "python" if citation.path.endswith(".py") else "text"
        parts.append(f"{number}. `{citation.path}:{citation.line}`\n\n{fence}{language}\n{citation.quote}\n{fence}")
    return "\n\n".join(parts) + f"\n\n*Composed by: {report.composer}.*\n"


def _quote(question: str, hit: Hit) -> Citation:
    """The consecutive lines of a passage that share most words with the question, the first such if several do."""
    lines = hit.text.split("\n")
    wanted = set(terms(question))
    found = [wanted.intersection(terms(line)) for line in lines]
    starts = range(max(1, len(lines) - MAX_QUOTED_LINES + 1))
    best = max(starts, key=lambda start: len(set().union(*found[start : start + MAX_QUOTED_LINES])))
    window = "\n".join(lines[best : best + MAX_QUOTED_LINES])
    leading = window[: len(window) - len(window.lstrip())].count("\n")
    return Citation(hit.path, hit.line + best + leading, window.strip())


def _said_lines(hit: Hit) -> list[tuple[int, str]]:
    """The lines of a passage that have a word in them, with their numbers."""
    numbered = enumerate(hit.text.split("\n"), start=hit.line)
    return [(number, line.strip()) for number, line in numbered if any(character.isalpha() for character in line)]
