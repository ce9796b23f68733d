"""The demo's story. Each part does one thing to a real party and keeps what it saw in `Facts`."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ..actors.delegation import child_id
from ..actors.errors import RuntimeUnavailableError
from ..actors.task_state import TaskState
from ..cluster.placement import Placement
from ..cluster.ray_runtime import RayRuntime
from ..eventstore.audit import MATCHES, ROLLED_BACK, verify_log
from ..eventstore.backends.index_file import delete
from ..examples.research.check import plant_false
from ..examples.research.corpus import Document, default_docs
from ..examples.research.index import Index
from ..examples.research.party import Answer, answer, check_citations
from ..examples.research.questions import evaluate
from ..handles import TaskHandle
from ..party import Party
from .home import Home
from .tampering import cut_the_tail, flip_a_bit

CUT = 5
_PATIENCE = 120.0
Facts = dict[str, Any]


class Teller(Protocol):
    """Shows the story to whoever watches, and asks them."""

    def say(self, text: str) -> None: ...
    def progress(self, done: int, total: int) -> None: ...
    def confirm(self, shown: Any) -> bool: ...


class Story:
    """One telling. ``seed`` decides where the host is killed and which bit is flipped."""

    def __init__(self, party: Party, home: Home, seed: int, teller: Teller) -> None:
        self.party, self.home, self.teller = party, home, teller
        self.random, self.facts = random.Random(seed), Facts(seed=seed)

    async def ask(self, question: str, docs: str) -> TaskHandle[Answer]:
        """Ask the party, by a request id: asking again would find the same task."""
        given = {"question": question, "docs": docs, "trace": str(self.home.trace)}
        task = await self.party.using(request_id="demo").ask(answer, **given)
        self.facts |= {"question": question, "task": task.id, "driver_pid": os.getpid()}
        return task

    async def kill_while_reading(self, reading: TaskHandle[Any]) -> int:
        """Kill the host's process at a random step, with SIGKILL; how many steps were done by then."""
        pid = await self._host_pid()
        kill_at = 0
        async for state in reading.watch(_PATIENCE):
            total = state.progress.total if state.progress else 0
            if total and not kill_at:
                kill_at = self.random.randrange(total // 5, total * 4 // 5)
            self.teller.progress(_settled(state), total)
            if kill_at and _settled(state) >= kill_at:
                break
        os.kill(pid, signal.SIGKILL)
        await _until(lambda: not _runs(pid))
        done = _settled(await reading.state())
        self.facts |= {"killed_at_step": kill_at, "steps_before_kill": done, "host_pid_before": pid}
        self.teller.say(f"Killed the host's process {pid} with SIGKILL after {done} steps.")
        return done

    def delete_caches(self) -> None:
        """Remove what is only a cache: index, views, snapshots."""
        for name in ("index.db", "views.db", "snapshots.db"):
            delete(self.party.settings.folder / name)
        if self.party.settings.views.startswith("redis"):
            import redis

            with redis.Redis.from_url(self.party.settings.views) as views:  # a server of the demo's own
                views.flushall()
        self.teller.say("Deleted its index, its views and its snapshots. The log is all that is left.")

    async def resume(self, reading: TaskHandle[Any], done: int, killed: float) -> None:
        """Ray starts the host again; the task goes on where it was."""
        first = 0.0
        async for state in reading.watch(_PATIENCE):
            if not first and _settled(state) > done:
                first = time.monotonic()
                self.facts["resume_seconds"] = round(first - killed, 2)
                self.teller.say(f"It goes on by itself, {first - killed:.1f} s after the kill, from step {done + 1}.")
            self.teller.progress(_settled(state), state.progress.total if state.progress else 0)
            if state.finished:
                break
        self.facts["host_pid_after"] = await self._host_pid()

    async def approve(self, task: TaskHandle[Answer]) -> Answer:
        """A person is asked, and signs what they are shown."""
        async for state in task.watch(_PATIENCE):
            if any(state.waits[wait].kind == "approval" for wait in state.open) or state.finished:
                break
        _, _, shown = await task.shown("publish")
        if await asyncio.to_thread(self.teller.confirm, shown):
            await task.approve("publish")
        else:
            await task.reject("publish", note="said no at the demo")
        return await task.result(_PATIENCE)

    async def check(self, task: TaskHandle[Answer], found: Answer) -> None:
        """The critic is given a false citation, and everything is counted."""
        planted = plant_false(found.citations[0])
        docs = (await self._arguments(task))["docs"]
        asked = await self.party.ask(check_citations, docs=docs, citations=[planted], trace=str(self.home.trace))
        (verdict,) = await asked.result(_PATIENCE)
        self.teller.say(f"A planted false citation is rejected: {verdict.reason}")
        documents = msgspec.msgpack.decode(await task.artifact(found.library), type=list[Document])
        score = await asyncio.to_thread(lambda: evaluate(Index.build(documents)))
        self.facts |= {
            "files_read": found.files,
            "citations": len(found.citations),
            "citations_verified": found.verified,
            "cited": [f"{citation.path}:{citation.line}" for citation in found.citations],
            "false_citation_rejected": not verdict.holds,
            "questions": score.total,
            "questions_right": score.right,
            "approved_by": found.approved_by,
        }
        await self._count_effects([task.id, child_id(task.id, 0), child_id(task.id, 2), asked.id])

    async def _count_effects(self, tasks: list[str]) -> None:
        states = [await self.party.task(task).state() for task in tasks]
        steps = [wait for state in states for wait in state.waits if wait.kind == "step"]
        starts = [line for task in tasks for line in await self.party.task(task).history()]
        replayed = sum(line.detail.replays for line in starts if line.event == "task.started")
        lines = self.home.trace.read_text().splitlines()
        self.facts |= {
            "steps_total": sum(not wait.name.startswith("artifact ") for wait in steps),
            "steps_replayed": replayed,
            "effects_executed": len(lines),
            "effects_distinct": len({tuple(line.split()[:2]) for line in lines}),
        }

    async def explain(self, found: Answer) -> None:
        """Ask the graph how what was read came to be, back to the person who asked."""
        why = await self.party.graph.why(f"artifact/{found.library.blob.hex()}")
        self.facts |= {"why": [edge.kind for edge in why.chain], "why_complete": why.complete}
        said = ", ".join(f"{edge.source.kind} {edge.kind} {edge.target.kind}" for edge in reversed(why.chain))
        self.teller.say(f"Why there is a library of {found.files} files, by the graph: {said}.")

    async def verify(self) -> None:
        """Verify the log; then flip a bit of one copy and cut the tail of another."""
        log, stack = self.party.stack.log, self.party.stack
        await log.refresh()
        log.remember()
        audit = await verify_log(log)
        whole = audit.ok and audit.checkpoint.status == MATCHES
        self.facts |= {"commits": audit.commits, "events": audit.events, "verify_ok": whole}
        self.teller.say(
            f"The log verifies: {audit.commits:,} signed commits, {audit.events:,} events, nothing missing."
        )
        harm = await flip_a_bit(stack, self.home.folder / "flipped", log.identity, self.random)
        self.facts |= {"tamper_injected_at": harm.injected_at, "tamper_detected_at": harm.detected_at}
        where = "{stream} revision {revision} event {event}".format(**harm.detected_at)
        self.teller.say(f"One bit flipped in a copy: {harm.finding} at {where}.")
        cut = await cut_the_tail(stack, self.home.folder / "cut", log.identity, CUT)
        self.facts["truncation_detected"] = cut.checkpoint.status == ROLLED_BACK
        self.teller.say(
            f"The last {CUT} commits cut from a copy: {cut.checkpoint.status}, by the remembered checkpoint."
        )

    async def _arguments(self, task: TaskHandle[Answer]) -> dict[str, Any]:
        given: dict[str, Any] = msgspec.msgpack.decode((await task.state()).input)
        return {**given, "docs": given["docs"] or str(default_docs())}

    async def _host_pid(self) -> int:
        runtime = self.party.runtime
        if not isinstance(runtime, RayRuntime):
            raise RuntimeUnavailableError("the demo kills a host's process: it needs the Ray runtime")
        placement: Placement = runtime.placement
        return int(await placement.call(placement.pooled(0), "ready", deadline=_PATIENCE))


async def tell(story: Story, question: str, docs: str) -> Facts:
    """The whole story, in order."""
    teller = story.teller
    task = await story.ask(question, docs)
    teller.say(f"Asked: {question}")
    await _until_child(story.party, task)
    reading: TaskHandle[Any] = story.party.task(child_id(task.id, 0))
    done = await story.kill_while_reading(reading)
    killed = time.monotonic()
    story.delete_caches()
    await story.resume(reading, done, killed)
    found = await story.approve(task)
    teller.say(found.answer)
    await story.check(task, found)
    await story.explain(found)
    await story.verify()
    return story.facts


async def _until_child(party: Party, task: TaskHandle[Any]) -> None:
    if not await party.watch.beyond(f"task/{child_id(task.id, 0)}", 0, _PATIENCE):
        raise RuntimeUnavailableError("the librarian did not start: look into ray.log in the demo's folder")


def _settled(state: TaskState) -> int:
    return sum(wait.settled is not None for wait in state.waits)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeUnavailableError("a killed process does not go away")
        await asyncio.sleep(0.01)
