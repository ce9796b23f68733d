"""Which processes live: told by locks that the kernel lets go of, however a process ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent_party.actors.presence import Presence
from agent_party.eventstore.errors import StoreReadOnlyError

ONE, TWO, NOBODY = b"1" * 16, b"2" * 16, b"0" * 16
HOLD = """
import sys
from pathlib import Path
from agent_party.actors.presence import Presence
presence = Presence(Path(sys.argv[1]), bytes.fromhex(sys.argv[2]))
print("here", flush=True)
sys.stdin.read()
"""


def test_the_living_the_left_and_the_unknown(tmp_path: Path) -> None:
    one, two = Presence(tmp_path, ONE), Presence(tmp_path, TWO)
    assert one.alive(ONE)
    assert one.alive(TWO)
    assert two.alive(ONE)
    assert not one.alive(NOBODY)
    two.close()
    two.close()
    assert not one.alive(TWO)
    one.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_is_gone(tmp_path: Path, how: signal.Signals) -> None:
    here = Presence(tmp_path, ONE)
    command = [sys.executable, "-c", HOLD, str(tmp_path), TWO.hex()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert here.alive(TWO)
        process.send_signal(how)
        process.wait(60)
    assert (tmp_path / TWO.hex()).exists(), "it had no chance to tidy up"
    assert not here.alive(TWO)
    assert not (tmp_path / TWO.hex()).exists()
    here.close()


def test_two_who_look_at_once_do_not_take_each_other_for_the_one_they_look_for(tmp_path: Path) -> None:
    import fcntl

    here = Presence(tmp_path, ONE)
    path = tmp_path / TWO.hex()
    path.touch()
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        assert not here.alive(TWO)
    here.close()


def test_a_file_that_cannot_be_looked_at_counts_as_alive(tmp_path: Path) -> None:
    here = Presence(tmp_path, ONE)
    (tmp_path / TWO.hex()).symlink_to(TWO.hex())  # a loop: it cannot be opened, by root neither
    assert here.alive(TWO)
    here.close()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreReadOnlyError, match="cannot be used"):
        Presence(tmp_path / "file", ONE)


def test_the_lock_does_not_pass_to_children(tmp_path: Path) -> None:
    presence = Presence(tmp_path, ONE)
    assert not os.get_inheritable(presence._file)
    presence.close()
