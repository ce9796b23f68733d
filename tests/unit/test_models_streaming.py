"""Pieces of text on their way to watchers: in order, bounded, and never recorded."""

import asyncio
import threading
from typing import Any

import pytest

from agent_party import Task, current_step, step
from agent_party.actors import streaming
from agent_party.actors.conversation import converse
from agent_party.actors.errors import MailboxFullError
from agent_party.actors.models import ModelAnswer, ModelRequest, ScriptedModel
from agent_party.actors.streaming import Piece, Streams
from tests.unit.handlers_kit import does, no_pauses, result, world
from tests.unit.world import World, until

__all__ = ["no_pauses", "world"]


def told(pieces: list[Piece]) -> list[str]:
    return [piece.mark or piece.text for piece in pieces]


def drain(streams: Streams, task: str = "t", cursor: int | None = None) -> tuple[list[str], int]:
    pieces, cursor = streams.since(task, cursor)
    return told(pieces), cursor


async def test_polling_from_a_cursor() -> None:
    streams = Streams()
    assert drain(streams) == ([], 0)
    streams.publish("t", 1, "a")
    streams.publish("other", 1, "x")
    found, cursor = drain(streams)
    assert found == ["a"]
    streams.publish("t", 2, "b")
    streams.end("t", 1)
    found, cursor = drain(streams, cursor=cursor)
    assert found == ["b", "end"]
    assert drain(streams, cursor=cursor)[0] == []
    streams.end("t", 1)
    streams.end("nobody", 1)
    assert drain(streams, cursor=cursor)[0] == []


async def test_who_comes_late_begins_with_what_runs() -> None:
    streams = Streams()
    streams.publish("t", 1, "done")
    streams.end("t", 1)
    streams.publish("t", 2, "so ")
    streams.publish("t", 2, "far")
    assert drain(streams)[0] == ["so ", "far"]
    assert drain(streams, cursor=10**9)[0] == ["so ", "far"]  # a cursor of another host's


async def test_another_attempt_voids_what_was_said() -> None:
    streams = Streams()
    streams.publish("t", 1, "a", attempt=1)
    streams.publish("t", 1, "b", attempt=2)
    streams.publish("t", 1, "late", attempt=1)  # of an attempt that was given up
    assert drain(streams)[0] == ["a", "again", "b"]


async def test_a_slow_watcher_loses_the_oldest_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "PIECES", 3)
    streams = Streams()
    streams.publish("t", 1, "0")
    _, cursor = drain(streams)
    for n in range(1, 6):
        streams.publish("t", 1, str(n))
    found, cursor = drain(streams, cursor=cursor)
    assert found == ["lost", "3", "4", "5"]
    assert drain(streams, cursor=cursor)[0] == []


async def test_everything_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, limit in (("LETTERS", 10), ("TASKS", 3), ("STEPS", 2), ("FOLLOWERS", 1)):
        monkeypatch.setattr(streaming, name, limit)
    streams = Streams()
    streams.publish("t", 1, "x" * 100)
    assert drain(streams)[0] == ["x" * 10]
    for wait in range(5):
        streams.publish("t", wait, "y")
    assert len(streams._runs["t"].attempts) == 2
    following = streams.follow("t")
    await anext(following)
    with pytest.raises(MailboxFullError):
        await anext(streams.follow("t"))
    for n in range(10):
        streams.publish(f"task {n}", 1, "z")
    assert set(streams._runs) == {"t", "task 8", "task 9"}  # a task that is followed stays
    await following.aclose()  # type: ignore[attr-defined]
    _, cursor = drain(streams, "task 9")
    streams.publish("new", 1, "z")
    streams.publish("task 9", 1, "more")
    for n in range(10, 14):
        streams.publish(f"task {n}", 1, "z")
    streams.publish("task 9", 1, "most")
    assert drain(streams, "task 9", cursor)[0] == ["lost", "most"]


async def test_following_until_the_task_runs_here_no_more() -> None:
    streams, found = Streams(), []

    async def watch() -> None:
        async for piece in streams.follow("t"):
            found.extend(told([piece]))

    watching = asyncio.ensure_future(watch())
    await until(lambda: streams._runs.get("t"))
    for n in range(3):
        streams.publish("t", 1, str(n))
        if n == 1:
            await until(lambda: len(found) == 2)
    streams.end("t", 1)
    streams.close("t")
    streams.close("nobody")
    await asyncio.wait_for(watching, 60)
    assert found == ["0", "1", "2", "end"]
    assert streams._followers == 0


async def test_any_step_can_be_watched_and_a_retry_voids_what_it_said(world: World) -> None:
    go_on = threading.Event()

    @step(retries=1, backoff=0)
    def speaks() -> None:
        current = current_step()
        current.publish(f"try {current.attempt}")
        go_on.wait(60)
        if current.attempt == 1:
            raise OSError("no")

    async def handler(task: Task) -> None:
        await task.step(speaks)

    process = await world.process(does(handler))
    following = process.host.streams.follow("t")
    await process.ask("t", "handler")
    found = [await asyncio.wait_for(anext(following), 60)]
    go_on.set()
    found += [piece async for piece in following]
    assert told(found) == ["try 1", "again", "try 2", "end"]


async def test_what_a_model_says_reaches_watchers_and_not_the_log(world: World) -> None:
    """A watcher sees the pieces while the model still speaks; only the answer is recorded, as one step."""
    go_on = asyncio.Event()

    class Speaks(ScriptedModel):
        async def complete(self, request: ModelRequest, emit: Any) -> ModelAnswer:
            emit("half ")
            await go_on.wait()
            emit("whole")
            return ModelAnswer("half whole")

    async def handler(task: Task) -> str:
        return (await converse(task, Speaks([]), "main", "go")).text

    process = await world.process(does(handler))
    following = process.host.streams.follow("t")
    await process.ask("t", "handler")
    assert (await asyncio.wait_for(anext(following), 60)).text == "half "
    assert told(process.host.streams.since("t")[0]) == ["half "]
    assert (await process.state("t")).waits[0].settled is None
    go_on.set()
    assert told([piece async for piece in following]) == ["whole", "end"]
    state = await process.finished("t")
    assert result(state) == "half whole"
    assert len(state.waits) == 1
    commits = await process.commits("task/t")
    assert [type(event).__name__ for commit in commits for event in commit.events].count("Advanced") <= 2
    assert len(commits) <= 5, "asked for, begun, opened, settled, ended"
