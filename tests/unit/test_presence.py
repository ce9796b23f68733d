"""Who lives: told by a lock that the kernel drops with its process."""

import subprocess
import sys
from pathlib import Path

from agent_party.actors.presence import Presence

A, B = bytes(16), bytes(range(16))
HOLD = """
import sys
from pathlib import Path
from agent_party.actors.presence import Presence
held = Presence(Path(sys.argv[1]), bytes(range(16)))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_process_lives_until_it_is_killed_however_that_is(tmp_path: Path) -> None:
    mine = Presence(tmp_path, A)
    assert mine.alive(A)
    assert not mine.alive(B)
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        assert mine.alive(B)
        assert mine.alive(B), "looking must not end it"
        other.kill()
        other.wait()
        assert not mine.alive(B)
    assert not (tmp_path / B.hex()).exists(), "what the dead leave behind is cleared away"
    mine.close()
    mine.close()
    assert not (tmp_path / A.hex()).exists()
