"""The effects of the research party: each leaves a line in a file, so that anyone can count how often it was done."""

from __future__ import annotations

import os
from pathlib import Path

from agent_party import current_step

from .answer import Citation
from .check import Verdict, verify_citation
from .corpus import Document, find_files, read_document


def did(trace: str, what: str) -> None:
    """Append one line to the trace, if there is one: task, wait, attempt, what. Outside of the log on purpose."""
    if not trace:
        return
    step = current_step()
    line = f"{step.task} {step.wait} {step.attempt} {what}\n".encode()
    file = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def list_files(docs: str, trace: str) -> list[str]:
    """The files of a folder, as relative paths."""
    did(trace, "list")
    return find_files(Path(docs))


def read_file(docs: str, path: str, trace: str) -> Document:
    """One file, read and divided into passages."""
    did(trace, f"read {path}")
    return read_document(Path(docs), path)


def reread(docs: str, citation: Citation, trace: str) -> Verdict:
    """Whether a citation stands in its file on disk, now."""
    did(trace, f"check {citation.path}:{citation.line}")
    return verify_citation(Path(docs), citation)
