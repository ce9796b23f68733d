"""Shard logs in processes of their own: started, paused, killed, ended; and how far each one has got."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from tests.faults.shard import PATIENCE, Config

_LOOK = 0.02
_ACKNOWLEDGED = b',"acknowledged",'


class Shard:
    """One of the processes that write. Killed and started anew, it goes on over the index that it left."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.histories: list[Path] = []
        self._process: asyncio.subprocess.Process | None = None
        self._read = self._acknowledged = 0

    @property
    def process(self) -> asyncio.subprocess.Process:
        """The process that runs now, or ran last."""
        assert self._process
        return self._process

    async def start(self) -> None:
        """A new process, with a history of its own."""
        number = len(self.histories)
        folder = Path(self.config.folder) / "histories"
        folder.mkdir(exist_ok=True)
        self.histories.append(folder / f"{self.config.index}-{number}.jsonl")
        file = self.histories[-1].with_suffix(".config")
        config = msgspec.structs.replace(
            self.config, history=str(self.histories[-1]), seed=self.config.seed * 1_000 + number
        )
        file.write_bytes(msgspec.json.encode(config))
        self._read = 0
        with self.histories[-1].with_suffix(".out").open("wb") as said:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.faults.shard", str(file), stdin=asyncio.subprocess.PIPE, stderr=said
            )

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.process.pid, number)

    async def kill(self) -> None:
        """SIGKILL."""
        self.tell(signal.SIGKILL)
        await self.process.wait()

    async def end(self) -> None:
        """Have it finish what it does and find out what is unknown; `AssertionError` if it cannot."""
        assert self.process.stdin
        self.process.stdin.close()
        async with asyncio.timeout(2 * PATIENCE):
            await self.process.wait()
        assert self.process.returncode == 0, self.said()

    def said(self) -> str:
        """What the process that runs, or ran last, has complained of."""
        return self.histories[-1].with_suffix(".out").read_text(encoding="utf-8", errors="replace")

    def acknowledged(self) -> int:
        """How many operations were acknowledged to all its processes so far; `AssertionError` if it has ended."""
        assert self.process.returncode is None, self.said()
        try:
            with self.histories[-1].open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except FileNotFoundError:
            return self._acknowledged
        whole = new.rfind(b"\n") + 1
        self._read += whole
        self._acknowledged += new.count(_ACKNOWLEDGED, 0, whole)
        return self._acknowledged

    async def gets_on(self, more: int = 1, seconds: float = PATIENCE) -> None:
        """Wait until so many more operations are acknowledged to it."""
        goal = self.acknowledged() + more
        async with asyncio.timeout(seconds):
            while self.acknowledged() < goal:  # noqa: ASYNC110 (what is waited for happens in another process)
                await asyncio.sleep(_LOOK)

    async def over(self) -> None:
        """Make sure that no process is left."""
        if self._process and self._process.returncode is None:
            await self.kill()
