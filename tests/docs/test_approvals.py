"""The page on approvals is executed: its program, and the stranger's check, which notices every change."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agent_party.eventstore.commit import SigningKey

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "approvals.md").read_text(encoding="utf-8")
PROGRAM, CHECK = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


class Case:
    """A folder with a log, its export, and what was disclosed of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        said = self.run("program.py", PROGRAM)
        assert said.startswith("paid 30 from main\n")
        self.task = said.split()[-1]
        self.export = json.loads(self.party("log", "export", "case.party", "--json"))
        self.proof = json.loads(self.party("task", "proof", self.task, "--wait", "0", "--json"))
        shutil.copy(ROOT / "eventstore" / "verify.py", folder / "verify.py")

    def people(self) -> dict[str, str]:
        folder = self.folder / "state" / "people"
        return {path.stem: SigningKey.from_seed(path.read_bytes()).public.hex() for path in folder.glob("*.key")}

    def party(self, *arguments: str) -> str:
        program = "from agent_party.cli.main import run; run()"
        return self._run([sys.executable, "-c", program, *arguments]).stdout

    def run(self, name: str, program: str) -> str:
        (self.folder / name).write_text(program)
        return self._run([sys.executable, name]).stdout

    def check(self, proof: Any, people: dict[str, str], export: bytes = b"") -> subprocess.CompletedProcess[str]:
        (self.folder / "check.py").write_text(CHECK)
        (self.folder / "proof.json").write_text(json.dumps(proof))
        (self.folder / "seen.party").write_bytes(export or (self.folder / "case.party").read_bytes())
        arguments = ["check.py", "seen.party", "proof.json", self.export["root"], json.dumps(people)]
        return self._run([sys.executable, *arguments], check=False)

    def _run(self, command: list[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PARTY_", "RAY_"))}
        environment |= {"PARTY_STATE_DIR": str(self.folder / "state"), "PYTHONPATH": str(ROOT)}
        ended = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert not check or ended.returncode == 0, ended.stdout + ended.stderr
        return ended


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("approvals"))


def test_a_stranger_sees_who_signed_what(case: Case) -> None:
    told = case.check(case.proof, case.people())
    assert told.returncode == 0, told.stderr
    shown, answer = "{'to': 'the baker'}", "{'account': 'main', 'amount': 30}"
    assert told.stdout.splitlines() == [
        f"ada: approve {shown} {answer}",
        f"bob: delegate {shown} None",
        f"fay: approve {shown} {answer}",
    ]


def resigned(case: Case, **changed: Any) -> Any:
    """The proof, with something else that ada herself has signed."""
    proof = json.loads(json.dumps(case.proof))
    key = SigningKey.from_seed((case.folder / "state" / "people" / "ada.key").read_bytes())
    statement = msgspec.msgpack.decode(bytes.fromhex(proof["statements"][0]["statement"])) | changed
    data = msgspec.msgpack.encode(statement)
    signature = key.sign(b"agent-party statement\0" + data)
    proof["statements"][0] |= {"statement": data.hex(), "signature": signature.hex()}
    return proof


@pytest.mark.parametrize(
    "changed",
    [
        {"shown": msgspec.msgpack.encode({"to": "eve"})},
        {"terms": b""},
        {"name": "other"},
        {"opened": bytes(32)},
        {"wait": 1},
        {"task": "other"},
        {"log": bytes(32)},
        {"person": "bob"},
    ],
    ids=str,
)
def test_anything_else_that_was_signed_is_noticed(case: Case, changed: dict[str, Any]) -> None:
    assert "AssertionError" in case.check(resigned(case, **changed), case.people()).stderr


def altered(proof: Any, change: Callable[[Any], None]) -> Any:
    copy = json.loads(json.dumps(proof))
    change(copy)
    return copy


def test_what_was_altered_or_is_anothers_is_noticed(case: Case) -> None:
    people, answer = case.people(), msgspec.msgpack.encode(30).hex()
    more = altered(
        case.proof,
        lambda p: p["statements"][0].update(
            statement=p["statements"][0]["statement"].replace(
                msgspec.msgpack.encode({"amount": 30}).hex()[2:], msgspec.msgpack.encode({"amount": 99}).hex()[2:]
            )
        ),
    )
    assert answer in case.proof["statements"][0]["statement"]
    assert more != case.proof
    assert "not signed by that person" in case.check(more, people).stderr
    assert "not signed by that person" in case.check(case.proof, people | {"ada": people["bob"]}).stderr
    other = altered(case.proof, lambda p: p["opening"].update(key="00" * 32))
    assert "AssertionError" in case.check(other, people).stderr
    export = bytearray((case.folder / "case.party").read_bytes())
    export[len(export) // 2] ^= 1
    assert "AssertionError" in case.check(case.proof, people, bytes(export)).stderr


def test_a_proof_of_what_nobody_signed_is_refused(case: Case) -> None:
    program = "from agent_party.cli.main import run; run()"
    ended = case._run([sys.executable, "-c", program, "task", "proof", case.task, "--wait", "9"], check=False)
    assert (ended.returncode, "nobody has signed wait 9" in ended.stderr) == (2, True)
