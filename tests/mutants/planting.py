"""Plants a bug in a copy of the source, and runs the tests that must notice it there."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("actors", "agent_party", "cluster", "eventstore", "examples", "projections", "tests", "docs", "benchmarks")
FILES = ("pyproject.toml", "README.md", "Makefile")
SECONDS = 240


class Mutant(NamedTuple):
    """A bug: in ``file``, ``old`` (which must stand there once) becomes ``new``; ``tests`` must then fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


class Fate(NamedTuple):
    """What became of a mutant. ``caught``: the tests ran, and one failed."""

    mutant: Mutant
    caught: bool
    told: str


def copy(folder: Path) -> None:
    """The source, as it is here, with its links between folders."""
    skipped = shutil.ignore_patterns("__pycache__", "results", ".hypothesis")
    for name in COPIED:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=skipped)
    for name in FILES:
        shutil.copy2(ROOT / name, folder / name)


def plant(mutant: Mutant, folder: Path) -> None:
    """Change the copy; `ValueError` where the mutant does not fit the source any more."""
    path = folder / mutant.file
    source = path.read_text(encoding="utf-8")
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its place is found {source.count(mutant.old)} times in {mutant.file}")
    path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")


def fate(mutant: Mutant) -> Fate:
    """Run a mutant's tests with and without the bug: they must pass without, and one must fail with it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copy(folder)
        plant(mutant, folder)
        code, told = _pytest(folder, mutant.tests)
    return Fate(mutant, code == 1, told)


def passes(tests: tuple[str, ...]) -> bool:
    """Whether tests pass as the source is."""
    return _pytest(ROOT, tests)[0] == 0


def _pytest(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return 1, f"it hung for {SECONDS} s, which the suite would notice"
    return done.returncode, done.stdout[-2_000:]
