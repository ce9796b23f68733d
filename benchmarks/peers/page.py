"""What the race came to: figures with their goals, the results file, and its section of docs/benchmarks.md."""

import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..measure import Figure, ratios, told
from .field import FIELD, OURS, Entry
from .race import ALONE, AT_ONCE, PARTS, Length, Race
from .work import SIZE

RESULTS = Path(__file__).parents[1] / "results" / "peers.json"
DOCS = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- peers: written by make bench-peers -->", "<!-- peers: end -->"
GOALS = {
    (ALONE, "DBOS"): 5.0, (AT_ONCE, "DBOS"): 5.0,
    (ALONE, "LangGraph"): 2.0, (AT_ONCE, "LangGraph"): 5.0,
    (ALONE, "Temporal"): 5.0, (AT_ONCE, "Temporal"): 5.0,
    (ALONE, "Restate"): 5.0, (AT_ONCE, "Restate"): 5.0,
}  # fmt: skip
"""Times a peer, in its fastest setting of equal durability."""


def figures(race: Race) -> list[Figure]:
    """Steps a second of each, and how many times theirs ours is, round by round."""
    found = []
    entries = [entry for entry in FIELD if entry.name in race.lines]
    for part in PARTS:
        found += [Figure(part, entry.title, "steps/s", race.lines[entry.name].rates[part]) for entry in entries]
        for entry in entries[1:] if entries[0].name == OURS else []:
            times = ratios(race.lines[OURS].rates[part], race.lines[entry.name].rates[part])
            goal = GOALS.get((part, entry.peer)) if entry in fastest(race, part).values() else None
            found.append(Figure(part, f"Agent Party / {entry.title}", "x", times, least=goal))
    return found


def fastest(race: Race, part: str) -> dict[str, Entry]:
    """Of each peer, its fastest setting of equal durability."""
    best: dict[str, Entry] = {}
    for entry in FIELD:
        if entry.peer and entry.equal and entry.name in race.lines:
            other = best.get(entry.peer)
            if other is None or _median(race, entry, part) > _median(race, other, part):
                best[entry.peer] = entry
    return best


def _median(race: Race, entry: Entry, part: str) -> float:
    return statistics.median(race.lines[entry.name].rates[part])


def results(facts: Mapping[str, Any], race: Race, length: Length) -> dict[str, Any]:
    """All of it, as the results file has it."""
    verified = {name: f"{line.verified:,} steps of {line.tasks:,} tasks" for name, line in race.lines.items()}
    work = {"bytes_in": SIZE, "bytes_out": SIZE, "steps_of_a_task": length.steps, "rounds": length.rounds}
    field = {
        entry.name: {
            "title": entry.title,
            "peer": entry.peer,
            "setting": entry.says,
            "equal": entry.equal,
            "versions": race.lines[entry.name].versions,
            "calls_a_step": {
                part: {"fsync": syncs.durable, "other": syncs.other}
                for part, syncs in race.lines[entry.name].syncs.items()
            },
        }
        for entry in FIELD
        if entry.name in race.lines
    }
    return told(facts, figures(race), verified) | {"work": work, "field": field, "missing": race.missing}


def written(page: str, results: Mapping[str, Any]) -> str:
    """The page with the section of these results, in the place of the one it has."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{section(results)}\n{END}{after}"


def section(results: Mapping[str, Any]) -> str:
    """The tables."""
    rows = {(row["part"], row["name"]): row for row in results["figures"]}
    facts, work = results["machine"], results["work"]
    parts = work["steps_of_a_task"]
    on = f"{facts['cores']} virtual cores, Python {facts['python']}, load {facts['load_at_start']:g} at the start"
    lines = [
        f"{on}; {work['rounds']} rounds; medians, with quartiles in brackets.",
        f"A task alone has {parts[ALONE]} steps, each of thirty at once {parts[AT_ONCE]}.",
        "",
        "| | steps/s, one task alone | fsyncs a step | steps/s, 30 at once | fsyncs a step |",
        "|---|---|---|---|---|",
    ]
    for entry in results["field"].values():
        cells = [f"{entry['title']}{'' if entry['equal'] else ' *'}"]
        for part in PARTS:
            cells += [_span(rows[part, entry["title"]]), _calls(entry["calls_a_step"].get(part))]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "\\* Not the same durability: a step may begin before the outcome of the one before is on disk.", ""]
    lines += ["| Agent Party is so many times | one task alone | goal | 30 at once | goal |", "|---|---|---|---|---|"]
    for entry in list(results["field"].values())[1:]:
        cells = [f"{entry['title']}{'' if entry['equal'] else ' *'}"]
        for part in PARTS:
            row = rows[part, f"Agent Party / {entry['title']}"]
            cells += [_span(row), _judged(row)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "What each is set to, and its version:", ""]
    for entry in results["field"].values():
        versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
        lines.append(f"- **{entry['title']}**: {entry['setting']} ({versions}).")
    lines += [f"- **{name}** did not take part: {why}." for name, why in results["missing"].items()]
    return "\n".join(lines) + "\n"


def _span(row: Mapping[str, Any]) -> str:
    return f"{_number(row['median'])} ({_number(row['low'])} to {_number(row['high'])})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _calls(calls: Mapping[str, float] | None) -> str:
    return "not counted" if calls is None else f"{calls['fsync']:.2g}"


def _judged(row: Mapping[str, Any]) -> str:
    if "target" not in row:
        return ""
    return f"≥ {row['target'].removeprefix('>= ')}: {'met' if row['met'] else '**missed**'}"
