"""Many tasks on one machine: live ones and their memory, passivated ones and what they cost, and who makes whom wait.

    python -m tests.campaigns.live_cells [--live 10000] [--passivated 100000] [--runtime local|ray] [--seed 1]

Each part is one chunk: an interrupted campaign goes on with the part it had come to, and one of another size does that
part again. Memory is PSS, of each process
that runs cells; Ray's own processes are counted beside.
"""

import argparse
import asyncio
import contextlib
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from agent_party import Agent, Party, Task, TaskHandle
from agent_party.actors.errors import DeadlineError
from agent_party.actors.local import LocalRuntime
from agent_party.eventstore.errors import UnknownOutcomeError
from tests.campaigns import Result

AT_ONCE = 64
MINUTE = 60.0
OTHERS = 50
TRIES = 5
keeper = Agent("keeper", concurrency=1_000)


@keeper.on("keep")
async def keep(task: Task, name: str) -> int:
    """Adds up what it is told, until it is told to stop."""
    total = [0]

    async def add(by: int) -> int:
        total[0] += by
        return total[0]

    task.on_update("add", add)
    await task.signal("stop")
    return total[0]


def pss(pid: int) -> int:
    """A process's share of memory, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("Pss:")))


def rays() -> int:
    """PSS of Ray's own processes, in bytes: all of its programs but the hosts."""
    total = 0
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
            if b"raylet" in command or b"gcs_server" in command or b"/ray/" in command:
                total += pss(int(folder.name))
        except (OSError, StopIteration):
            continue
    return total


async def pids(party: Party) -> list[int]:
    """The processes that run cells."""
    if isinstance(party.runtime, LocalRuntime):
        return [os.getpid()]
    from agent_party.cluster.ray_runtime import RayRuntime

    assert isinstance(party.runtime, RayRuntime)
    place = party.runtime.placement
    return [int(await place.call(place.pooled(n), "ready", deadline=120)) for n in range(place.hosts)]


async def together(work: Sequence[Callable[[], Awaitable[Any]]], at_once: int = AT_ONCE) -> list[float]:
    """Do all of it, so many at once. How long each took, in seconds."""
    todo, times = iter(work), list[float]()

    async def one() -> None:
        for act in todo:
            began = time.perf_counter()
            await act()
            times.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(at_once)))
    return times


def quantile(times: Sequence[float], part: float) -> float:
    return sorted(times)[min(len(times) - 1, int(part * len(times)))]


def _told(times: Sequence[float], name: str) -> Counter[str]:
    micro = {f"{name}_p50_us": quantile(times, 0.5), f"{name}_p99_us": quantile(times, 0.99)}
    return Counter({key: round(1e6 * value) for key, value in micro.items()})


def opened(folder: Path, runtime: str, idle: float) -> Party:
    os.environ["PARTY_STATE_DIR"] = f"{folder}/state"
    os.environ["PARTY_IDLE"] = str(idle)
    return Party.open(agents=[keeper], journal=f"sqlite:///{folder}/.party/log.db", runtime=runtime, hosts=2)


async def asked(party: Party, count: int, offset: int = 0) -> tuple[list[TaskHandle[int]], list[float]]:
    tasks: list[TaskHandle[int]] = []

    async def ask(n: int) -> None:
        asking = party.using(agent="keeper", request_id=f"{offset + n}")
        for _ in range(TRIES):
            with contextlib.suppress(UnknownOutcomeError, DeadlineError):  # ask again with the same id
                tasks.append(await asking.ask(keep, name=str(n)))
                return
        raise DeadlineError(f"request {offset + n} came to nothing in {TRIES} tries")

    def asking(n: int) -> Callable[[], Awaitable[None]]:
        return lambda: ask(n)

    return tasks, await together([asking(n) for n in range(count)])


def _adding(task: TaskHandle[int]) -> Callable[[], Awaitable[Any]]:
    return lambda: task.update("add", by=1)


async def live(folder: Path, runtime: str, count: int, rng: random.Random) -> Counter[str]:
    """So many live at once, each with a stream of its own, and each answers a durable message within a minute."""
    async with opened(folder, runtime, 1e9) as party:
        hosts = await pids(party)
        before = sum(map(pss, hosts))
        tasks, times = await asked(party, count)
        rng.shuffle(tasks)
        began = time.monotonic()
        answers = await together([_adding(task) for task in tasks])
        took = time.monotonic() - began
        memory = sum(map(pss, hosts))
        alive = len(party.runtime.host.cells) if isinstance(party.runtime, LocalRuntime) else count
        found = Counter(live=alive, answered=len(answers), answered_in_a_minute=int(took < MINUTE), hosts=len(hosts))
        found |= Counter(pss_before=before, pss=memory, pss_each=(memory - before) // count, ray=rays())
        found |= Counter(answering_ms=round(1e3 * took), asking_ms=round(1e3 * sum(times) / AT_ONCE))
        return found | _told(answers, "answer")


async def passivated(folder: Path, runtime: str, count: int, rng: random.Random) -> Counter[str]:
    """So many that wait out of memory; what they cost there; how long one takes to come back."""
    async with opened(folder, runtime, 0.2) as party:
        hosts = await pids(party)
        first, _ = await asked(party, min(1_000, count // 2))
        await _gone(party)
        before = sum(map(pss, hosts))
        rest, times = await asked(party, count - len(first), len(first))
        await _gone(party)
        memory, tasks = sum(map(pss, hosts)), [*first, *rest]
        rounds = await _rounds(party)
        woken = rng.sample(tasks, min(1_000, count))
        answers = await together([_adding(task) for task in woken], 1)
        disk = sum(path.stat().st_size for path in (folder / ".party").rglob("*") if path.is_file())
        found = Counter(passivated=count, pss_before=before, pss=memory, disk=disk, disk_each=disk // count)
        found |= Counter(pss_each=max(0, memory - before) // len(rest), asking_ms=round(1e3 * sum(times) / AT_ONCE))
        return found | _told(answers, "activation") | (_told(rounds, "round") if rounds else Counter())


async def _gone(party: Party) -> None:
    """Wait until nothing is live. On Ray it takes two rounds of the supervisors."""
    if not isinstance(party.runtime, LocalRuntime):
        await asyncio.sleep(10)
        return
    host = party.runtime.host
    while host.cells:
        await host.sweep()
        await asyncio.sleep(0.05)


async def _rounds(party: Party) -> list[float]:
    """How long the supervisor's look at what should run takes."""
    if not isinstance(party.runtime, LocalRuntime):
        return []
    host = party.runtime.host
    return await together([host.reconcile] * 20, 1)


async def fairness(folder: Path, runtime: str, count: int, rng: random.Random) -> Counter[str]:
    """How long others wait beside one task that is flooded, and how long without it. ``count``: messages to each."""
    async with opened(folder, runtime, 1e9) as party:
        tasks, _ = await asked(party, OTHERS + 1)
        hot, others = tasks[0], tasks[1:]
        alone, beside = list[float](), list[float]()
        for _ in range(3):  # in turns, so that the machine's moods fall on both
            alone += await _paced(others, count // 3, rng)
            flood = [asyncio.ensure_future(_flood(hot)) for _ in range(AT_ONCE)]
            await asyncio.sleep(0.5)
            beside += await _paced(others, count // 3, rng)
            for one in flood:
                one.cancel()
            await asyncio.gather(*flood, return_exceptions=True)
        ratio = round(100 * quantile(beside, 0.99) / quantile(alone, 0.99))
        return Counter(ratio_percent=ratio) | _told(alone, "alone") | _told(beside, "beside")


async def _flood(task: TaskHandle[int]) -> None:
    while True:
        await task.update("add", by=1)


async def _paced(tasks: Sequence[TaskHandle[int]], count: int, rng: random.Random) -> list[float]:
    """Messages to each of the tasks, at chance moments, well below what the machine can do."""
    times: list[float] = []

    async def one(task: TaskHandle[int]) -> None:
        for _ in range(count):
            await asyncio.sleep(rng.random())
            began = time.perf_counter()
            await task.update("add", by=1)
            times.append(time.perf_counter() - began)

    await asyncio.gather(*map(one, tasks))
    return times


async def campaign(options: argparse.Namespace) -> Counter[str]:
    """Go on from the part that an earlier run with this seed has come to."""
    sizes = (options.live, options.passivated, options.messages)
    result = Result(f"live_cells_{options.runtime}", options.seed)
    for number, (part, size) in enumerate(zip((live, passivated, fairness), sizes, strict=True)):
        if not size or (number < result.done and result.counts[f"{part.__name__}_size"] == size):
            continue
        with tempfile.TemporaryDirectory(prefix="agent-party-cells-") as folder:
            began = time.monotonic()
            found = await part(Path(folder), options.runtime, size, random.Random(f"{part.__name__}:{options.seed}"))
        found |= Counter(seconds=round(time.monotonic() - began), size=size)
        named = Counter({f"{part.__name__}_{name}": value for name, value in found.items()})
        print(f"{part.__name__}: {dict(sorted(found.items()))}", flush=True)
        for key in [key for key in result.counts if key.startswith(f"{part.__name__}_")]:
            del result.counts[key]
        if not options.dry:
            result.add(number + 1, named)
        result.counts |= named
    return result.counts


def main() -> int:
    """The command line: 0 if the bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.live_cells", description=__doc__.splitlines()[0])
    parser.add_argument("--live", type=int, default=10_000)
    parser.add_argument("--passivated", type=int, default=100_000)
    parser.add_argument("--messages", type=int, default=60)
    parser.add_argument("--runtime", choices=("local", "ray"), default="local")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dry", action="store_true", help="keep no result")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    found = asyncio.run(campaign(options))
    held = found["live_pss"] < 2 << 30 and found["fairness_ratio_percent"] <= 300
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
