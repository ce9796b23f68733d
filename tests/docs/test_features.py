"""docs/features.md holds: what each row names is there, and every planted bug still fits the source."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.mutants.book import MUTANTS
from tests.mutants.planting import Mutant, fate, plant

ROOT = Path(__file__).resolve().parents[2]
NAMES = {mutant.name for mutant in MUTANTS}


class Row(NamedTuple):
    """One feature."""

    feature: str
    tests: list[str]
    examples: list[str]
    mutants: list[str]


def rows() -> list[Row]:
    """The table, without its heads."""
    found: list[Row] = []
    for line in (ROOT / "docs" / "features.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 5 and not cells[0].startswith(("**", "feature")):
            found.append(Row(cells[0], *(re.findall(r"`([^`]+)`", cell) for cell in cells[2:])))
    return found


def test_there_are_many() -> None:
    assert len(rows()) >= 40


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.feature)
def test_what_a_row_names_is_there(row: Row) -> None:
    assert row.tests, "a feature needs a test"
    assert row.examples, "a feature needs an example"
    assert row.mutants, "a feature needs a planted bug"
    for name in (*row.tests, *row.examples):
        assert (ROOT / name).exists(), name
    assert set(row.mutants) <= NAMES


def test_every_planted_bug_stands_for_a_feature() -> None:
    assert {name for row in rows() for name in row.mutants} == NAMES


def test_names_are_given_once() -> None:
    assert [name for name, times in Counter(mutant.name for mutant in MUTANTS).items() if times > 1] == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_still_fits_the_source(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    assert mutant.new != mutant.old
    for test in mutant.tests:
        assert (ROOT / test.partition("::")[0]).exists(), test


def test_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\nx = 1\n")
    with pytest.raises(ValueError, match="found 2 times"):
        plant(Mutant("twice", "a.py", "x = 1", "x = 2", ()), tmp_path)


def test_one_is_caught_and_one_that_changes_nothing_survives() -> None:
    test = ("tests/unit/test_sagas.py::test_a_saga_takes_back_in_reverse_order_what_it_did",)
    caught = next(mutant for mutant in MUTANTS if mutant.name == "saga-reversed")._replace(tests=test)
    assert fate(caught).caught
    assert not fate(caught._replace(new=caught.old + " ")).caught
