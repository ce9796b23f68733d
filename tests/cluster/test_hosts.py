"""Hosts on a real Ray: agents' own, and shared ones; steps elsewhere; what steps say; an end in good order."""

import asyncio
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from agent_party import Agent, Party, StepError, Task, current_step, step
from agent_party.actors.errors import RuntimeUnavailableError
from agent_party.actors.events import Received
from agent_party.actors.packing import pack
from agent_party.cluster import host_actor, ray_runtime
from agent_party.cluster.host_actor import HostActor
from agent_party.cluster.placement import Placement
from agent_party.cluster.ray_runtime import RayRuntime
from agent_party.cluster.settings import Settings, load
from agent_party.cluster.wiring import Stack, open_stack
from agent_party.eventstore.errors import StoreError
from agent_party.eventstore.tape import Tape
from tests.cluster.dedicated import survive_dedicated
from tests.unit.world import until

shared = Agent("shared", dedicated=False)


@step(where="ray")
def away(number: int) -> tuple[int, int]:
    """Runs in a process of Ray's."""
    if number < 0:
        raise ValueError("negative")
    return number * 2, os.getpid()


@step(where="ray")
def dies() -> None:
    """Takes its process with it."""
    os._exit(1)


@shared.on("shared.away")
async def run_away(task: Task, number: int) -> list[int]:
    """Two steps elsewhere, one of which fails."""
    doubled, pid = await task.step(away, number)
    await task.memory.set("doubled", doubled)
    with pytest.raises(StepError, match="ValueError: negative"):
        await task.step(away, -1)
    with pytest.raises(StepError, match="StepCrashedError"):
        await task.step(dies)
    return [doubled, pid, os.getpid(), await task.memory.get("doubled", kind=int)]


def speaks(until: str) -> None:
    """Says something, and goes on when a file is there."""
    current_step().publish("half")
    while not Path(until).exists():
        time.sleep(0.02)
    current_step().publish("whole")


@shared.on("shared.speak")
async def speak(task: Task, file: str) -> None:
    """One step that speaks."""
    await task.step(speaks, file)


@shared.on("shared.wait")
async def wait(task: Task) -> str:
    """Waits for a signal."""
    return str(await task.signal("go"))


async def test_an_agent_that_shares_hosts_has_no_actor_of_its_own(place: Path) -> None:
    async with Party.open(agents=[shared], runtime="ray", hosts=2) as party:
        with pytest.raises(ValueError, match="agent:shared"):
            ray.get_actor("agent:shared", namespace="agent-party")
        doubled, away_pid, host_pid, remembered = await (await party.ask(run_away, number=21)).result(300)
        assert (doubled, remembered) == (42, 42)
        assert away_pid != host_pid
        health = await party.agent("shared").health()
        assert (health.phase, health.hosts, health.error_rate) == ("running", 1, 0.0)
        await party.agent("shared").pause()
        asked = await party.using(agent="shared").ask(wait)

        async def paused() -> bool:
            return (await party.agent("shared").state()).phase == "paused"

        await until(paused, 300)
        assert (await asked.state()).finished is False
        await party.agent("shared").resume()
        await asked.signal("go", "on")
        assert await asked.result(300) == "on"


async def test_what_a_step_says_is_heard_from_another_process(place: Path) -> None:
    async with Party.open(agents=[shared], runtime="ray", hosts=1) as party:
        task = await party.ask(speak, file=str(place / "go"))
        heard: list[str] = []
        async for piece in task.listen():
            heard += [piece.text] if piece.text else []
            if piece.text == "half":
                (place / "go").touch()
        assert heard == ["half", "whole"]


async def test_a_host_on_ray_passivates_and_drains(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTY_IDLE", "0.1")
    async with Party.open(agents=[shared], runtime="ray", hosts=1) as party:
        assert isinstance(party.runtime, RayRuntime)
        hosts = party.runtime.placement

        async def came_back() -> bool:
            task = await party.ask(wait)
            await asyncio.sleep(1)  # in which a round of the supervisor may come, in another process
            await task.signal("go", "once more")
            assert await task.result(300) == "once more"
            return (await task.state()).runs >= 2

        await until(came_back, 300)
        tasks = [await party.ask(wait) for _ in range(2)]
        await hosts.call(hosts.pooled(0), "drain", 30.0)
        message = Received("signal", "go", pack("late", ""), b"l" * 16)
        with pytest.raises(Exception, match="about to end"):
            await hosts.call(hosts.pooled(0), "deliver", tasks[1].id, message, 30.0)
    async with Party.open(agents=[shared], runtime="local") as party:
        task = party.task(tasks[1].id)
        await task.signal("go", "later")
        assert await task.result(300) == "later"


async def test_an_actor_that_does_not_go_is_a_clear_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_runtime, "_START", 0.2)
    runtime: Any = RayRuntime.__new__(RayRuntime)
    runtime.placement = type("P", (), {"namespace": "n"})()
    monkeypatch.setattr(ray, "get_actor", lambda name, namespace: name)
    with pytest.raises(RuntimeUnavailableError, match="agent:x of an earlier program does not end"):
        runtime._await_gone("agent:x")
    monkeypatch.undo()


@pytest.mark.parametrize("again", [False, True])
async def test_a_host_that_was_started_again_tries_until_it_can(
    again: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = list[Settings]()

    async def open_at_the_third(settings: Settings, tape: Tape | None) -> Stack:
        tries.append(settings)
        if len(tries) < 3:
            raise StoreError("the views are away")
        return await open_stack(settings, tape=tape)

    context = SimpleNamespace(was_current_actor_reconstructed=again)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: context)
    monkeypatch.setattr(host_actor, "open_stack", open_at_the_third)
    monkeypatch.setattr(host_actor, "_AGAIN", 0.01)
    settings = load({"journal": f"sqlite:///{tmp_path}/log.db", "state": str(tmp_path / "state")})
    host = HostActor(settings, [shared], Placement("n", "s", 1, ("shared",)), 0)
    if again:
        assert await host.ready() == os.getpid()
        assert caplog.text.count("cannot begin yet: the views are away") == 1
        await host.stop()
    else:
        with pytest.raises(StoreError, match="the views are away"):
            await host.ready()
    assert len(tries) == (3 if again else 1)


@pytest.mark.parametrize("early", [False, True], ids=["it runs", "it begins"])
async def test_a_host_that_is_told_to_end_begins_nothing_whenever_it_is_told(
    early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()

    async def open_at_last(settings: Settings, tape: Tape | None) -> Stack:
        await asyncio.to_thread(gate.wait)
        return await open_stack(settings, tape=tape)

    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(was_current_actor_reconstructed=False))
    monkeypatch.setattr(host_actor, "open_stack", open_at_last)
    settings = load({"journal": f"sqlite:///{tmp_path}/log.db", "state": str(tmp_path / "state")})
    host = HostActor(settings, [shared], Placement("n", "s", 1, ("shared",)), 0)
    for told in (early, not early):
        if told:
            host._told()
        else:
            gate.set()
            await host.ready()
            assert host._host.ending is early
    await until(lambda: host._host.ending)
    await host.stop()


async def test_agents_own_hosts_are_killed_while_messages_flow(place: Path) -> None:
    seen = await survive_dedicated(place / "ledger", 10, 7)
    assert seen["messages"] > 20
    assert seen["lost"] == seen["doubled"] == 0
