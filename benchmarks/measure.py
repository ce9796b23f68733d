"""Figures: series measured in turns, ratios taken turn by turn, and what a reader needs to judge them."""

import contextlib
import json
import os
import platform
import sqlite3
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec
from rich.console import Console
from rich.table import Table

Turn = Callable[[], Awaitable[float]]


class Figure(msgspec.Struct, frozen=True, omit_defaults=True):
    """One number that was measured several times. ``least``/``most``: the target, if it has one."""

    part: str
    name: str
    unit: str
    values: list[float]
    least: float | None = None
    most: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The quartiles, between which half of the turns lie."""
        if len(self.values) < 4:
            return min(self.values), max(self.values)
        low, _, high = statistics.quantiles(self.values, n=4)
        return low, high

    @property
    def target(self) -> str:
        """The target as text; empty if it has none."""
        return f">= {self.least:g}" if self.least is not None else f"<= {self.most:g}" if self.most is not None else ""

    @property
    def met(self) -> bool:
        """Whether the median meets the target; true where there is none."""
        return (self.least is None or self.median >= self.least) and (self.most is None or self.median <= self.most)

    def row(self) -> dict[str, Any]:
        """As it stands in the results."""
        low, high = self.spread
        shown = {"part": self.part, "name": self.name, "unit": self.unit, "turns": len(self.values)}
        figures = {"median": self.median, "low": low, "high": high, "min": min(self.values), "max": max(self.values)}
        judged = {"target": self.target, "met": self.met} if self.target else {}
        return shown | {key: float(f"{value:.4g}") for key, value in figures.items()} | judged


class Report(NamedTuple):
    """What a part found: its figures, and in words what was read back and verified."""

    figures: list[Figure]
    verified: str


async def in_turns(rounds: int, turns: Mapping[str, Turn]) -> dict[str, list[float]]:
    """Every measurement once a round, in one order and then in the other, so that drift falls on all alike."""
    values: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(rounds):
        for name in list(turns) if number % 2 == 0 else reversed(list(turns)):
            values[name].append(await turns[name]())
    return values


def ratios(ours: Sequence[float], raw: Sequence[float]) -> list[float]:
    """Round by round, how our rate compares with the raw one."""
    return [mine / theirs for mine, theirs in zip(ours, raw, strict=True)]


class Clock:
    """``with Clock() as clock``: seconds of the wall and of this process's processor time."""

    def __enter__(self) -> Self:
        self._wall, self._used = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall, self.used = time.perf_counter() - self._wall, time.process_time() - self._used


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that says whose machine it is."""
    load = os.getloadavg()[0]
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_at_start": round(load, 2),
    }


def show(figures: Sequence[Figure], verified: Mapping[str, str]) -> None:
    """A table on standard output."""
    table = Table(box=None, pad_edge=False)
    for heading in ("part", "figure", "median", "quartiles", "range", "target", ""):
        table.add_column(heading, justify="left" if heading in ("part", "figure", "") else "right")
    for figure in figures:
        row = figure.row()
        spread, whole = f"{row['low']:,g} - {row['high']:,g}", f"{row['min']:,g} - {row['max']:,g}"
        verdict = "" if not figure.target else "met" if figure.met else "missed"
        table.add_row(
            figure.part, figure.name, f"{row['median']:,g} {figure.unit}", spread, whole,
            figure.target, verdict,
        )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    for part, text in verified.items():
        console.print(f"{part}: {text}", style="dim", highlight=False)


def told(facts: Mapping[str, Any], figures: Sequence[Figure], verified: Mapping[str, str]) -> dict[str, Any]:
    """All of it as one object, for the results file and the line of ``--json``."""
    return {"machine": dict(facts), "figures": [figure.row() for figure in figures], "verified": dict(verified)}


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write the results file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


ESTABLISHED = "01"
"""A connection's state, as the kernel writes it."""


def connections(pid: int, server: str, *states: str) -> int:
    """How many connections a process of this machine has to a server's port, in any state or in one of these."""
    port, own = f":{int(server.rpartition(':')[2]):04X}", set[str]()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            own.add(str(file.readlink()))
    rows = [row.split() for row in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(
        row[2].endswith(port) and (not states or row[3] in states) and f"socket:[{row[9]}]" in own for row in rows
    )
