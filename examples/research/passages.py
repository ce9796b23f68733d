"""Splitting a file into passages: consecutive lines with the number of the first.

Everything here is pure. A passage is verbatim: its text is whole lines of `visible_lines`, blank space at either end
aside, so that whoever holds the file can check it. Only a line longer than `LONG_LINE` is cut, between words, into
passages that share its number.
"""

from __future__ import annotations

import ast
import io
import re
import warnings
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from typing import TypeAlias

import msgspec

MAX_CHARACTERS = 700
LONG_LINE = 400
MAX_SIGNATURE_LINES = 6

_HTML = (".html", ".htm", ".xhtml")
_HIDDEN_TAGS = frozenset({"script", "style", "template", "noscript"})
_BLOCK = """
address article aside blockquote body br dd div dl dt figure footer form h1 h2 h3 h4 h5 h6 head header hr li
main nav ol p pre section table td th title tr ul
"""
_BLOCK_TAGS = frozenset(_BLOCK.split())
_TRIPLE, _SINGLE = r"{0}{0}{0}(?:\\.|[^\\])*?{0}{0}{0}", r"{0}(?:\\.|[^{0}\\\n])*{0}"
_LEXEMES = ["#[^\\n]*", *(form.format(quote) for form in (_TRIPLE, _SINGLE) for quote in "\"'")]
_COMMENT_OR_STRING = re.compile("|".join(_LEXEMES), re.DOTALL)
_WORD = re.compile(r"[^\W\d_]{2,}")


Definition: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """Consecutive lines of a file; `line` is the 1-based number of the first."""

    line: int
    text: str


def split_passages(path: str, text: str) -> list[Passage]:
    """The passages of a document in the order a reader would want them kept when there are too many.

    The suffix of `path` decides how it is split. Python that does not parse is split like plain text.
    """
    lines = visible_lines(path, text)
    if path.lower().endswith(".py"):
        try:
            return list(_python(lines, _parse(lines)))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass  # another Python's syntax: its paragraphs are still worth reading
    return list(_paragraphs(lines, 1, markdown=path.lower().endswith((".md", ".markdown"))))


def visible_lines(path: str, text: str) -> list[str]:
    """The lines of a file as a reader sees them: HTML without its tags, everything else as it stands.

    Lines end at LF, CR or CRLF, and at nothing else: `str.splitlines` also breaks at form feeds, which would shift
    every line number after one.
    """
    return _VisibleText(text).lines if path.lower().endswith(_HTML) else source_lines(text)


def source_lines(text: str) -> list[str]:
    """The lines of a text without their line ends."""
    return [line.rstrip("\n") for line in io.StringIO(text, newline=None)]


def _paragraphs(lines: list[str], first: int, *, markdown: bool = False) -> Iterator[Passage]:
    """Runs of lines between blank ones. `first` is the number of `lines[0]`."""
    start = size = 0
    fenced = False
    for number, line in enumerate([*lines, ""]):
        fence = markdown and line.lstrip().startswith(("```", "~~~"))
        fenced ^= fence
        ends = not line.strip() and not fenced
        # A heading says what the paragraph below it is about, so the blank line between them does not part them.
        heading = ends and markdown and number < len(lines) and _is_heading(lines[start:number])
        if size + len(line) > MAX_CHARACTERS or (ends and not heading):
            yield from _cut(lines[start:number], first + start)
            start, size = number, 0
        size += len(line) + 1
    yield from _cut(lines[start:], first + start)


def _is_heading(block: list[str]) -> bool:
    """Whether a block is nothing but a Markdown heading, with blank lines or not."""
    said = [line for line in block if line.strip()]
    return len(said) == 1 and said[0].startswith("#")


def _cut(block: list[str], first: int) -> Iterator[Passage]:
    """The block as a passage, without blank lines at its ends; a line that is too long as several."""
    while block and not block[0].strip():
        block, first = block[1:], first + 1
    if len(block) == 1 and len(block[0]) > LONG_LINE:
        for piece in pieces_of(block[0]):
            yield Passage(first, piece)
    elif any(len(line) > LONG_LINE for line in block):
        for offset, line in enumerate(block):
            yield from _cut([line], first + offset)
    elif block and _WORD.search("\n".join(block)):
        yield Passage(first, "\n".join(block).strip())


def pieces_of(line: str) -> Iterator[str]:
    """The pieces of a long line, parted at spaces where there are any."""
    line = line.strip()
    while line:
        piece = line[:LONG_LINE]
        if len(line) > LONG_LINE and " " in piece:
            piece = piece[: piece.rindex(" ")]
        if _WORD.search(piece):
            yield piece.strip()
        line = line[len(piece) :].lstrip()


class _VisibleText(HTMLParser):
    """The visible text of a page, kept on the lines of the source on which it stands."""

    def __init__(self, page: str) -> None:
        # Character references are resolved one by one below: the parser's own way joins them to their neighbours
        # and loses count of the lines.
        super().__init__(convert_charrefs=False)
        source = "\n".join(source_lines(page))
        self._shown: list[list[str]] = [[] for _ in range(source.count("\n") + 1)]
        self._hidden = 0
        self.feed(source)
        self.close()
        self.lines = [" ".join("".join(parts).split()) for parts in self._shown]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._hidden += tag in _HIDDEN_TAGS
        self._space_at(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden = max(0, self._hidden - (tag in _HIDDEN_TAGS))
        self._space_at(tag)

    def handle_data(self, data: str) -> None:
        self._show(data)

    def handle_entityref(self, name: str) -> None:
        self._show(_character(f"&{name};"))

    def handle_charref(self, name: str) -> None:
        self._show(_character(f"&#{name};"))

    def _space_at(self, tag: str) -> None:
        if tag in _BLOCK_TAGS:
            self._show(" ")

    def _show(self, text: str) -> None:
        if not self._hidden:
            first = self.getpos()[0] - 1
            for offset, part in enumerate(text.split("\n")):
                self._shown[first + offset].append(part)


def _character(reference: str) -> str:
    """What a character reference stands for; a line end in disguise would shift the lines below."""
    return unescape(reference).replace("\n", " ").replace("\r", " ")


# ---------------------------------------------------------------------------------------------------------- Python


def _parse(lines: list[str]) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # somebody's odd escapes are no concern of a reader
        return ast.parse("\n".join(lines))


def _python(lines: list[str], module: ast.Module) -> Iterator[Passage]:
    """The module's docstring, then what is public, then comments, then what is private."""
    yield from _docstring(lines, module, 0)
    public: list[Passage] = []
    private: list[Passage] = []
    for node, hidden in _definitions(module, False):
        (private if hidden else public).extend(_definition(lines, node))
    yield from public
    yield from _comments(lines)
    yield from private


def _definitions(parent: ast.AST, hidden: bool) -> Iterator[tuple[Definition, bool]]:
    """Classes and functions in the order they stand, with whether they are private; not those inside functions."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, Definition):
            private = hidden or node.name.startswith("_")
            yield node, private
            if isinstance(node, ast.ClassDef):
                yield from _definitions(node, private)
        elif isinstance(node, ast.If | ast.Try):
            yield from _definitions(node, hidden)


def _definition(lines: list[str], node: Definition) -> Iterator[Passage]:
    """The signature with the first paragraph of the docstring, then the other paragraphs."""
    first, body = node.lineno, node.body[0]
    if ast.get_docstring(node, clean=False) is not None:
        yield from _docstring(lines, node, first)
    elif not node.name.startswith("_"):
        last = min(max(first, body.lineno - 1), first + MAX_SIGNATURE_LINES - 1)
        while last > first and not lines[last - 1].split("#")[0].rstrip().endswith(":"):
            last -= 1  # comments and decorators between the signature and the body
        yield from _cut(lines[first - 1 : last], first)


def _docstring(lines: list[str], node: ast.Module | Definition, first: int) -> Iterator[Passage]:
    """The paragraphs of a docstring, from line `first` (the signature's) or its own first line if that is 0."""
    if ast.get_docstring(node, clean=False) is None:
        return
    body = node.body
    start, end = body[0].lineno, body[0].end_lineno or body[0].lineno
    if first and start - first > MAX_SIGNATURE_LINES:
        first = start
    yield from _paragraphs(lines[(first or start) - 1 : end], first or start)


def _comments(lines: list[str]) -> Iterator[Passage]:
    """Blocks of comment lines, without those inside strings."""
    comments = set(_comment_lines("\n".join(lines)))
    block: list[str] = []
    for number, line in enumerate([*lines, ""], start=1):
        if number in comments and line.lstrip().startswith("#"):
            block.append(line)
            continue
        if len(_WORD.findall("\n".join(block))) >= 6:
            yield from _paragraphs(block, number - len(block))
        block = []


def _comment_lines(text: str) -> Iterator[int]:
    """The numbers of the lines with a comment. The `tokenize` module knows them too, at twenty times the cost."""
    number, seen = 1, 0
    for lexeme in _COMMENT_OR_STRING.finditer(text):
        if lexeme[0].startswith("#"):
            number += text.count("\n", seen, lexeme.start())
            seen = lexeme.start()
            yield number
