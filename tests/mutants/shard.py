"""Planted bugs of shard logs."""

from tests.mutants.planting import Mutant

_UNIT = ("tests/unit/test_shard_log.py",)

SHARD = (
    Mutant(
        "shard-silence-is-unknown",
        "cluster/shard_tape.py",
        '            raise Indefinite(f"whether the records stand',
        '            raise StoreBusyError(f"whether the records stand',
        _UNIT,
    ),
    Mutant(
        "shard-tells-what-it-read",
        "cluster/shard_lane.py",
        "            return await self.read(seen)\n        except EventStoreError:",
        "            first = end - len(records) + 1\n"
        "            return Chunk(seen.place, [Entry(first + n, raw) for n, raw in enumerate(records)], Seen(end))\n"
        "        except EventStoreError:",
        _UNIT,
    ),
    Mutant(
        "shard-end-is-asked-anew",
        "cluster/shard_lane.py",
        "            if place == seen.place and when >= asked:\n",
        "            if place == seen.place:\n",
        _UNIT,
    ),
    Mutant(
        "shard-same-prefix",
        "cluster/shard_lane.py",
        "        if seen.digest and (entry.place != seen.place or Seen.of(entry).digest != seen.digest):\n",
        "        if False:\n",
        _UNIT,
    ),
    Mutant(
        "shard-epoch-travels",
        "cluster/shard_tape.py",
        "            seen = Seen.of(taken[-1]) if rest else last\n",
        "            seen = Seen.of(taken[-1])\n",
        _UNIT,
    ),
    Mutant(
        "shard-what-was-sent-stays-so",
        "cluster/shard_calls.py",
        "sent=not waits or not isinstance(error, Lost) or error.sent)",
        "sent=not isinstance(error, Lost) or error.sent)",
        _UNIT,
    ),
    Mutant(
        "shard-strange-errors-say-nothing",
        "cluster/shard_wire.py",
        'if known else "Indefinite", [said])',
        'if known else "StoreError", [said])',
        _UNIT,
    ),
)
