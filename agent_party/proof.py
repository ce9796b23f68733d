"""What a stranger needs, beside an export, to check what people signed: see docs/approvals.md."""

from typing import TYPE_CHECKING, Any

import msgspec

from .actors.errors import SettledError
from .actors.events import Signed
from .actors.statements import Approval
from .actors.task_state import WaitState
from .eventstore import sealing
from .eventstore.errors import PayloadError
from .eventstore.verify import parse, parse_body

if TYPE_CHECKING:
    from .party import Party


async def proof_of(party: "Party", task: str, number: int) -> dict[str, Any]:
    """The statements on an approval, and the key of the one event that opened it, which opens no other. In hex.

    `SettledError` where nobody has signed.
    """
    state = await party.task(task).state()
    wait = state.waits[number] if 0 <= number < len(state.waits) else None
    signed = _signed(number, wait) if wait else []
    if not wait or not signed:
        raise SettledError(f"nobody has signed wait {number} of task {task}: `party task show {task}` lists its waits")
    statements = [
        {"person": one.person, "statement": one.statement.hex(), "signature": one.signature.hex()} for one in signed
    ]
    opening = {"revision": wait.revision, "event": wait.index, "key": (await _key(party, task, wait)).hex()}
    return {"task": task, "wait": number, "name": wait.name, "opening": opening, "statements": statements}


def _signed(number: int, wait: WaitState) -> list[Signed]:
    """All that was signed, in order."""
    if wait.settled is None or wait.settled.failure or wait.kind != "approval":
        return list(wait.signed)
    last = msgspec.msgpack.decode(wait.settled.value, type=Approval)
    return [*wait.signed, Signed(number, last.person, last.statement, last.signature)]


async def _key(party: "Party", task: str, wait: WaitState) -> bytes:
    log, stream = party.stack.log, f"task/{task}".encode()
    for row in log.index.rows(stream, wait.revision, wait.revision):
        (entry,) = await log.tape.fetch(row.lane, [row.place])
        record = parse(entry.raw)
        event = parse_body(record)[0][wait.index]
        return sealing.event_key(
            sealing.hkdf_extract(record.header.salt, log.keys.of_id(event.key_id).secret), wait.index
        )
    raise PayloadError(f"task {task} has no revision {wait.revision}")
