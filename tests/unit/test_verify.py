"""The verifier on the vectors: what holds and what does not, as a second verifier sees it too, and all by itself."""

import importlib.util
import json
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from agent_party.eventstore import verify
from agent_party.eventstore.verify import MAX_RECORD, Malformed, check_export, identity, judge, parse, slice_of
from tests.logs import second_verifier
from tests.logs.making import Making, Told, event_head, framed, rebodied

ROOT = Path(__file__).resolve().parents[2]
VECTORS = ROOT / "tests" / "vectors" / "log-format"
GOOD = sorted(path.stem for path in VECTORS.glob("good/*.party"))
BAD = sorted(path.stem for path in VECTORS.glob("bad/*.party"))
FINDINGS = {
    "not-an-export",
    "wrong-root",
    "wrong-log",
    "malformed",
    "wrong-slice",
    "wrong-format",
    "no-grant",
    "sealed",
    "stale",
    "body-mismatch",
    "bad-signature",
    "not-allowed",
    "unlinked",
    "wrong-order",
    "wrong-checksum",
}


def vector(kind: str, name: str) -> tuple[Path, dict[str, Any]]:
    path = VECTORS / kind / f"{name}.party"
    told: dict[str, Any] = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return path, told


def wrongly_answered() -> list[str]:
    """The vectors of which the verifier says something else than it must."""
    wrong = []
    for kind, names in (("good", GOOD), ("bad", BAD)):
        for name in names:
            path, told = vector(kind, name)
            report = check_export(path.read_bytes(), bytes.fromhex(told["root"]))
            if report["finding"] != told.get("finding", "") or (kind == "bad" and report["at"] != told["at"]):
                wrong.append(name)
    return wrong


# The vectors


def test_there_are_enough_vectors_and_they_are_small() -> None:
    assert len(GOOD) >= 10
    assert len(BAD) >= 30
    assert sum(path.stat().st_size for path in VECTORS.rglob("*") if path.is_file()) < 1_000_000
    assert all(vector("bad", name)[1]["finding"] in FINDINGS for name in BAD)
    causes = Counter(vector("bad", name)[1]["finding"] for name in BAD)
    assert causes.keys() == FINDINGS
    assert min(causes.values()) > 1


@pytest.mark.parametrize("name", GOOD)
def test_good(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, told = vector("good", name)
    assert verify.main([str(path), "--root", told["root"], "--log", told["log"]]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["finding"], report["log"]) == ("", told["log"])
    assert "cut off" in report["not_shown"]


@pytest.mark.parametrize("name", BAD)
def test_bad(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, told = vector("bad", name)
    assert verify.main([str(path), "--root", told["root"]]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["finding"], report["at"]) == (told["finding"], told["at"])
    assert "not_shown" not in report


@pytest.mark.parametrize("kind", ["good", "bad"])
def test_a_second_verifier_agrees(kind: str) -> None:
    for name in GOOD if kind == "good" else BAD:
        path, told = vector(kind, name)
        finding, at = second_verifier.verify(path.read_bytes(), bytes.fromhex(told["root"]))
        assert finding == told.get("finding", ""), name
        assert kind == "good" or at == told["at"], name


def test_two_verifiers_agree_on_altered_files() -> None:
    """Mutations of good exports that neither author thought of."""
    dice = random.Random(20_260_101)
    small = [name for name in GOOD if vector("good", name)[0].stat().st_size < 6_000]
    for _ in range(400):
        path, told = vector("good", dice.choice(small))
        data, root = bytearray(path.read_bytes()), bytes.fromhex(told["root"])
        for _ in range(dice.choice((1, 1, 2))):
            place = dice.randrange(len(data))
            data[place : place + dice.choice((0, 1, 1, 1))] = dice.randbytes(dice.choice((0, 1, 1, 1)))
        ours = check_export(bytes(data), root)
        assert (ours["finding"], ours["at"]) == second_verifier.verify(bytes(data), root), path.stem


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_vectors", VECTORS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_vectors_are_generated_again_byte_by_byte() -> None:
    made = dict(generator().files())
    there = {str(path.relative_to(VECTORS)) for folder in ("good", "bad") for path in (VECTORS / folder).iterdir()}
    assert made.keys() == there
    assert [name for name, content in made.items() if (VECTORS / name).read_bytes() != content] == []


# All by itself


def test_it_runs_where_nothing_of_ours_is(tmp_path: Path) -> None:
    """A copy of the file, without site-packages: only the standard library, PyNaCl and what that stands on."""
    shutil.copy(ROOT / "eventstore" / "verify.py", tmp_path / "check.py")
    library = tmp_path / "library"
    library.mkdir()
    for module in ("nacl", "_cffi_backend"):
        spec = importlib.util.find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin)
        source = source.parent if source.name == "__init__.py" else source
        (library / source.name).symlink_to(source)
    for kind, name, status in (("good", GOOD[0], 0), ("good", GOOD[-1], 0), ("bad", BAD[0], 1), ("bad", BAD[-1], 1)):
        path, told = vector(kind, name)
        finished = subprocess.run(
            [sys.executable, "-S", "-s", "check.py", str(path), "--root", told["root"]],
            cwd=tmp_path,
            env={"PYTHONPATH": str(library)},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert finished.returncode == status, finished.stderr
        assert json.loads(finished.stdout)["finding"] == told.get("finding", "")


def test_nothing_to_read_is_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify.main([str(tmp_path / "none"), "--root", "00" * 32]) == 2
    assert "verify.py:" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        verify.main([str(tmp_path), "--root", "no hex"])
    assert stopped.value.code == 2


def test_another_log_of_the_same_root_is_told() -> None:
    path, told = vector("good", "one-commit")
    report = check_export(path.read_bytes(), bytes.fromhex(told["root"]), bytes(32))
    assert (report["finding"], report["at"]) == ("wrong-log", {"record": 0})


# What the vectors are too small for


def test_the_largest_record_and_one_byte_more() -> None:
    making = Making(1)
    holder = making.grant(b"note/a")
    raw = making.data(holder)
    frame = len(rebodied(raw, holder.key, [Told(event_head(length=0), b"")]))
    for size, finding in ((MAX_RECORD, ""), (MAX_RECORD + 1, "malformed")):
        payload = bytes(size - frame)
        largest = rebodied(raw, holder.key, [Told(event_head(length=len(payload)), payload)])
        assert len(largest) == size
        data = framed(making.log, [*making.records, largest])
        assert check_export(data, making.root.public)["finding"] == finding
        assert second_verifier.verify(data, making.root.public)[0] == finding


def test_slices_are_within_bounds_and_used_evenly() -> None:
    log = identity(bytes(32), 16, bytes(32))
    counted = Counter(slice_of(log, b"note/%d" % number) for number in range(16_000))
    assert counted.keys() == set(range(16))
    assert max(counted.values()) < 1_200
    assert [slice_of(log, name) for name in (b"keys/0", b"keys/15", b"keys/99999")] == [0, 15, 99_999]


@pytest.mark.parametrize(
    ("root", "slices", "nonce"), [(31, 1, 32), (32, 0, 32), (32, 3, 32), (32, 2**17, 32), (32, 1, 33)]
)
def test_no_identity(root: int, slices: int, nonce: int) -> None:
    with pytest.raises(Malformed):
        identity(bytes(root), slices, bytes(nonce))


def test_what_is_not_accepted_changes_nothing() -> None:
    """Whatever the finding, the states that come back are the ones that were given."""
    for name in BAD:
        data = vector("bad", name)[0].read_bytes()
        try:
            log = identity(data[21:53], int.from_bytes(data[53:57]), data[57:89])
            start = 89
            raws = []
            while size := int.from_bytes(data[start : start + 4]):
                raws.append(parse(data[start + 4 : start + 4 + size]))
                start += 4 + size
        except Malformed:
            continue
        part, state = verify.SliceState(), verify.beginning(log, raws[-1].header.stream)
        verdict = judge(log, part, state, raws[-1])
        if verdict.finding:
            assert verdict == (verdict.finding, state, part, []), name


# The tests of the tests: each planted bug is seen by a vector


@pytest.mark.parametrize(
    ("name", "planted"),
    [
        ("signature_holds", lambda *_: True),
        ("key_is_sound", lambda key: len(key) == 32),
        ("tree_root", lambda leaves: bytes(32)),
        ("slice_of", lambda log, stream: 0),
        ("MAX_EVENTS", 1_001),
        ("MAX_ISSUERS", 65),
        ("MAX_GRANTS", 257),
        ("MAX_ATTACHMENTS", 17),
        ("MAX_STREAM", 201),
        ("MAX_TYPE", 65),
        ("MAX_META", 4_097),
        ("FORMATS", frozenset({0, 1, 2})),
        ("FORMATS", frozenset({1})),
        ("NOT_BEGUN", 1),
        ("STREAM", re.compile(rb"[a-z][a-z0-9-]{0,31}(/[A-Za-z0-9._~-]{1,64}){1,6}\n?", re.ASCII)),
        ("EVENT_TYPE", re.compile(rb"[a-z][a-z0-9_-]*(\.[a-z0-9_-]+)*", re.ASCII)),
        ("SLICE_STREAM", re.compile(rb"keys/([0-9]{1,5})", re.ASCII)),
        ("SLICE_CONTROLS", {}),
        ("CONTROLS", {}),
    ],
)
def test_a_planted_bug_is_caught(name: str, planted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, name, planted)
    assert wrongly_answered() != []


def test_without_a_planted_bug_nothing_is_answered_wrongly() -> None:
    assert wrongly_answered() == []
