"""What a durable step costs on the tape beyond what the step says.

A task of many steps runs as it would for anyone. Then, for each commit of the task's stream that records a step: the
length of the whole record (header, signature, body; all that SQLite or Kafka is given) less the length of its events'
payloads before encryption (MessagePack: the step's name, number, input and outcome).
"""

import tempfile
from pathlib import Path
from unittest import mock

from agent_party import Agent, Party, Task
from agent_party.actors.events import Advanced
from agent_party.eventstore.verify import DATA, Identity, Record

from .measure import Figure, Report
from .site import judged, raws


def double(number: int) -> int:
    """The effect."""
    return 2 * number


agent = Agent("bench", version="1")


@agent.on("bench.steps")
async def steps(task: Task, count: int) -> int:
    """As many steps as asked for, one after the other."""
    return sum([await task.step(double, number) for number in range(count)])


async def size(quick: bool) -> Report:
    """Bytes of each one-step commit over its payload."""
    count = 12 if quick else 200
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        journal, state = f"sqlite:///{folder}/party/log.db", {"PARTY_STATE_DIR": str(Path(folder) / "state")}
        with mock.patch.dict("os.environ", state):
            async with Party.open(agents=[agent], journal=journal, runtime="local") as party:
                task = await party.ask(steps, count=count)
                assert await task.result() == count * (count - 1)
                records = [record for record in judged(*await _tape(party)) if _of(task.id, record)]
                over, payload = await _over(party, records)
    assert len(over) == count - 1  # the last outcome stands in one commit with the result
    part = "size"
    return Report(
        [
            Figure(part, "record of a one-step commit over its payload", "bytes", over, most=400),
            Figure(part, "its payload", "bytes", payload),
        ],
        f"{len(records):,} records of the task accepted by the rule, {len(over):,} of them are steps",
    )


async def _tape(party: Party) -> tuple[Identity, list[bytes]]:
    log = party.stack.log
    return log.identity, [stored.raw for stored in await raws(log)]


def _of(task: str, record: Record) -> bool:
    return record.header.kind == DATA and record.header.stream == f"task/{task}".encode()


async def _over(party: Party, records: list[Record]) -> tuple[list[float], list[float]]:
    log, over, payload = party.stack.log, list[float](), list[float]()
    commits = {commit.revision: commit async for commit in log.read(records[0].header.stream.decode())}
    for record in records:
        events = commits[record.header.revision].events
        if [type(event) for event in events] == [Advanced] and len(events[0].settled) == 1:
            plain = sum(len(log.codec.encode(event)[2]) for event in events)
            over.append(float(len(record.raw) - plain))
            payload.append(float(plain))
    return over, payload
