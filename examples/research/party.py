"""A party that answers a question over a folder of documents: a librarian, a writer, a critic, and a person.

party ask research.answer question="How do I run a subprocess with a timeout?" --app examples.research.party:agents
"""

from __future__ import annotations

import asyncio

import msgspec

from agent_party import Agent, Task
from agent_party.eventstore.artifacts import Artifact

from .answer import Citation, Report, render
from .check import Verdict
from .corpus import Document, default_docs
from .effects import did, list_files, read_file, reread
from .index import Index
from .model import composer_from_environment
from .questions import DEFAULT_QUESTION

librarian = Agent("librarian", version="1", description="reads a folder and keeps its passages")
writer = Agent("writer", version="1", description="answers from what the librarian read, with citations")
critic = Agent("critic", version="1", description="rereads every cited file and checks the quotation")
agents = [librarian, writer, critic]


class Answer(msgspec.Struct, frozen=True):
    """What `research.answer` comes to. ``report`` is Markdown in the blobs."""

    question: str
    answer: str
    citations: list[Citation]
    verified: int
    approved_by: str
    report: Artifact
    library: Artifact
    files: int


@librarian.on("library.read")
async def read_library(task: Task, docs: str, trace: str = "") -> Artifact:
    """Read every file, a durable step each, and keep the passages as one artifact."""
    paths = await task.step(list_files, docs, trace)
    documents: list[Document] = []
    for number, path in enumerate(paths, 1):
        documents.append(await task.step(read_file, docs, path, trace))
        task.progress(number, len(paths))
    return await task.artifact("library", await asyncio.to_thread(msgspec.msgpack.encode, documents))


@critic.on("citations.check")
async def check_citations(task: Task, docs: str, citations: list[Citation], trace: str = "") -> list[Verdict]:
    """Reread each cited file from disk and see whether the quotation stands at that line."""
    return [await task.step(reread, docs, citation, trace) for citation in citations]


@writer.on("research.answer")
async def answer(task: Task, question: str = DEFAULT_QUESTION, docs: str = "", trace: str = "") -> Answer:
    """Have the folder read, compose an answer, have it checked, ask a person, and keep the report."""
    folder = docs or str(default_docs())
    library: Artifact = await task.ask(read_library, docs=folder, trace=trace)
    documents = msgspec.msgpack.decode(await task.open(library), type=list[Document])

    def compose(question: str) -> Report:
        did(trace, "compose")
        return composer_from_environment()(question, Index.build(documents).search(question))

    report = await task.step(compose, question)
    verdicts: list[Verdict] = await task.ask(check_citations, docs=folder, citations=report.citations, trace=trace)
    sound = [citation for citation, verdict in zip(report.citations, verdicts, strict=True) if verdict.holds]
    text = render(msgspec.structs.replace(report, citations=sound))
    approval = await task.approval("publish", show={"question": question, "report": text})
    kept = await task.artifact("report.md", text)
    return Answer(question, report.answer, sound, len(sound), approval.person, kept, library, len(documents))
