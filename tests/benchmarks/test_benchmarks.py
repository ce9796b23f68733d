"""The benchmarks run and verify what they wrote; how fast they are is no test's business."""

import asyncio
import json
from pathlib import Path

import pytest

from benchmarks import site as sites
from benchmarks.__main__ import PARTS, main
from benchmarks.measure import Figure, in_turns, ratios


def test_every_part_runs_and_verifies_its_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results.json"
    assert main(["--quick", "--json", "--results", str(results)]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    told = json.loads(line)
    assert told == json.loads(results.read_text())
    verified = told["verified"]
    assert set(verified) == set(PARTS)
    assert "equal by hash to the same in memory" in verified.pop("views-in-redis")  # it writes no log
    assert [part for part, text in verified.items() if "accepted by the rule" not in text] == []
    assert {figure["part"] for figure in told["figures"]} == {part.replace("-", " ") for part in PARTS}
    assert all(figure["min"] > 0 for figure in told["figures"])
    assert set(told["machine"]) == {"cores", "architecture", "system", "python", "sqlite", "load_at_start"}


def test_a_table_is_for_people_and_a_quick_run_leaves_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Path(sites.__file__).parent / "results"
    before = {path: path.read_bytes() for path in kept.glob("*")}
    assert main(["size", "--quick"]) == 0
    assert "record of a one-step commit over its payload" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in kept.glob("*")} == before


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "no part is called speed" in capsys.readouterr().err


async def test_what_is_missing_or_altered_is_noticed() -> None:
    """The check that the figures stand on: it fails if a commit is not there, or says something else."""
    async with sites.site(2) as place:
        await place.append_to_all(2, 2, [sites.written()])
        assert "4 events read back equal" in await place.verify(sites.written())
        with pytest.raises(AssertionError):
            await place.verify(sites.written(501))
        place.revisions[1] += 1
        with pytest.raises(AssertionError, match="missing"):
            await place.verify(sites.written())


async def test_an_altered_record_is_noticed() -> None:
    async with sites.site(1) as place:
        await place.append(0, 1, [sites.written()])
        records = [stored.raw for stored in await sites.raws(place.log)]
        records[-1] = records[-1][:-1] + bytes([records[-1][-1] ^ 1])
        with pytest.raises(AssertionError, match="bench/n0 revision 1"):
            sites.judged(place.log.identity, records)


def test_turns_are_taken_forth_and_back() -> None:
    order: list[str] = []

    def turn(name: str) -> float:
        order.append(name)
        return float(len(order))

    async def first() -> float:
        return turn("a")

    async def second() -> float:
        return turn("b")

    values = asyncio.run(in_turns(3, {"a": first, "b": second}))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert values == {"a": [1, 4, 5], "b": [2, 3, 6]}
    assert ratios(values["b"], values["a"]) == [2, 0.75, 1.2]


def test_a_figure_is_judged_by_its_median() -> None:
    figure = Figure("part", "name", "x", [0.5, 0.9, 0.8, 0.7, 0.6], least=0.7)
    assert (figure.median, figure.met, figure.target) == (0.7, True, ">= 0.7")
    assert figure.row() | {"low": 0, "high": 0} == {
        "part": "part", "name": "name", "unit": "x", "turns": 5, "median": 0.7, "low": 0, "high": 0,
        "min": 0.5, "max": 0.9, "target": ">= 0.7", "met": True,
    }  # fmt: skip
    assert not Figure("part", "name", "ms", [3, 1, 2], most=1.5).met
    assert Figure("part", "name", "ms", [3]).target == ""
