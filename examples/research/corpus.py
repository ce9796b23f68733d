"""Finding and reading the documents. Reading one file is the effect of one durable step."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import sysconfig
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import msgspec

from .errors import DocsEmptyError, DocsMissingError, DocsUnreadableError, OutsideDocsError
from .passages import Passage, source_lines, split_passages

SUFFIXES = (".txt", ".text", ".rst", ".md", ".markdown", ".html", ".htm", ".xhtml", ".py")
MAX_FILES = 5_000
MAX_BYTES = 1_000_000
MAX_PASSAGES = 120
MAX_PASSAGE_BYTES = 16_000  # of one document: it is recorded on a log, where the average should stay below 8 KB

_FOREIGN_FOLDERS = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages", "venv"})
# In the standard library these hold programs, tests and modules that later Pythons removed: nothing anybody asks for.
_STDLIB_SKIPPED = frozenset({"test", "tests", "idlelib", "lib2to3", "turtledemo", "distutils"})
_SNIFFED = 8_192


class Skipped(msgspec.Struct, frozen=True):
    """A file that has a document's suffix but is not read, and why."""

    path: str
    reason: str


class Survey(msgspec.Struct, frozen=True):
    """What a folder holds: relative POSIX paths to read, and what is left out."""

    files: list[str]
    skipped: list[Skipped]


class Document(msgspec.Struct, frozen=True):
    """One file as the librarian read it, small enough to be recorded.

    `sha256` is of the file's bytes; `lines` counts all its lines; `passages` stand in the order of their lines and may
    be fewer than the file has. A file that could not be read has no passages and says why in `skipped`.
    """

    path: str
    sha256: str
    lines: int
    passages: list[Passage]
    skipped: str = ""


def default_docs() -> Path:
    """The sources of the running Python's standard library: real documents present on every machine."""
    return Path(sysconfig.get_path("stdlib"))


def find_files(docs: Path) -> list[str]:
    """The files of a folder that can be read, sorted, as relative POSIX paths. Raises what `survey` raises."""
    return survey(docs).files


def survey(docs: Path) -> Survey:
    """Look through a folder for text, Markdown, HTML and Python, at most `MAX_FILES` of `MAX_BYTES` each.

    Hidden folders, installed packages and links that lead out of the folder are not followed. Raises
    `DocsMissingError`, `DocsUnreadableError`, or `DocsEmptyError` if nothing is left to read.
    """
    files: list[str] = []
    skipped: list[Skipped] = []
    candidates = sorted(_candidates(docs))
    for place, path in enumerate(candidates):
        if len(files) == MAX_FILES:
            skipped.append(
                Skipped(path, f"the limit of {MAX_FILES} files; so are {len(candidates) - place - 1} after it")
            )
            break
        if reason := _why_not(docs, path):
            skipped.append(Skipped(_in_utf8(path), reason))
        else:
            files.append(path)
    if not files:
        seen = f" {len(skipped)} were skipped, the first because: {skipped[0].reason}." if skipped else ""
        raise DocsEmptyError(
            f"{docs} holds no document to read.{seen} Give a folder with files ending in {', '.join(SUFFIXES)}."
        )
    return Survey(files, skipped)


def read_document(docs: Path, path: str) -> Document:
    """Read one file and split it into passages: the effect of one durable step, repeatable at will.

    `path` is relative to `docs`. A file that has gone, is too large, binary or in an unknown encoding comes back
    without passages and with the reason. Raises `OutsideDocsError`.
    """
    try:
        data = read_bytes(docs, path)
    except OSError as error:
        return Document(path, "", 0, [], skipped=_cannot(error))
    digest = hashlib.sha256(data).hexdigest()
    if len(data) > MAX_BYTES:
        return Document(path, digest, 0, [], skipped=f"larger than {MAX_BYTES} bytes")
    try:
        text = decode(path, data)
    except ValueError as error:
        return Document(path, digest, 0, [], skipped=str(error))
    return Document(path, digest, len(source_lines(text)), _within_limits(split_passages(path, text)))


def read_bytes(docs: Path, path: str) -> bytes:
    """At most `MAX_BYTES` + 1 bytes of a document. Raises `OutsideDocsError`, and `OSError` as the system does."""
    pure = PurePosixPath(path)
    full = docs / pure
    if pure.is_absolute() or ".." in pure.parts or not _within(docs, full):
        raise OutsideDocsError(f"{path!r} leads out of {docs}. Give a path relative to that folder.")
    if not full.is_file():  # a pipe would block for ever
        raise FileNotFoundError(errno.ENOENT, "no such file", path)
    with full.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def decode(path: str, data: bytes) -> str:
    """The text of a document: UTF-8, or what a Python file declares. Raises `ValueError` saying why it is none."""
    if b"\0" in data:
        raise ValueError("binary: it holds a zero byte")
    encoding = "utf-8-sig"
    if path.lower().endswith(".py"):
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
        except SyntaxError as error:
            raise ValueError(f"its encoding is unknown: {error.msg}") from error
    try:
        text = data.decode(encoding)
        text.encode()  # some encodings a Python file may declare yield what no log can hold
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"not text in {encoding}: {error}") from error
    return text


def _within_limits(passages: list[Passage]) -> list[Passage]:
    """As many passages as a record may hold, the most useful first, back in the order of their lines."""
    kept: list[Passage] = []
    room = MAX_PASSAGE_BYTES
    for passage in passages[:MAX_PASSAGES]:
        room -= len(passage.text.encode()) + 8
        if room < 0:
            break
        kept.append(passage)
    return sorted(kept, key=lambda passage: passage.line)


def _candidates(docs: Path) -> Iterator[str]:
    """Every file with a document's suffix, as a relative POSIX path."""
    if not docs.is_dir():
        what = "is not a folder" if docs.exists() else "does not exist"
        raise DocsMissingError(f"{docs} {what}. Give the folder of your documents with --docs DIR.")
    foreign = _FOREIGN_FOLDERS | _STDLIB_SKIPPED if docs.resolve() == default_docs().resolve() else _FOREIGN_FOLDERS
    for folder, folders, names in os.walk(docs, onerror=_refuse_unlistable(docs)):
        folders[:] = sorted(name for name in folders if name not in foreign and not name.startswith("."))
        for name in names:
            if name.lower().endswith(SUFFIXES) and not name.startswith("."):
                yield (Path(folder) / name).relative_to(docs).as_posix()


def _refuse_unlistable(docs: Path) -> Callable[[OSError], None]:
    """For `os.walk`: the folder itself must be listable; a locked folder within it is passed over."""

    def refuse(error: OSError) -> None:
        if error.filename is not None and Path(error.filename) == docs:
            raise DocsUnreadableError(f"{docs} cannot be listed: {error.strerror}. Check its permissions.") from error

    return refuse


def _why_not(docs: Path, path: str) -> str:
    """Why a file should not be read, from its size and first bytes alone; empty if it should."""
    full = docs / path
    if path != _in_utf8(path):
        return "its name is not UTF-8: it could not be recorded"
    try:
        if not _within(docs, full):
            return "a link that leads out of the folder"
        if not full.is_file():
            return "not a regular file"
        if full.stat().st_size > MAX_BYTES:
            return f"larger than {MAX_BYTES} bytes"
        with full.open("rb") as file:
            return "binary: it holds a zero byte" if b"\0" in file.read(_SNIFFED) else ""
    except OSError as error:
        return _cannot(error)


def _in_utf8(path: str) -> str:
    return path.encode(errors="replace").decode()


def _cannot(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"


def _within(docs: Path, full: Path) -> bool:
    """Whether a path, its links followed, is in the folder. `Path.resolve` raises on a loop of links; this does not."""
    return Path(os.path.realpath(full)).is_relative_to(os.path.realpath(docs))
