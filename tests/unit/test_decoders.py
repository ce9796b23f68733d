"""A short run of the decoders' campaign, and the proof that it can fail."""

import tracemalloc
from collections import Counter
from typing import Any

import pytest

from agent_party.eventstore import verify
from agent_party.eventstore.export import read_export
from agent_party.eventstore.verify import MAX_RECORD, Malformed, check_export, parse, parse_event_header
from tests.campaigns.decoders import SEED, Accepted, Decoders, chunk

COUNT = 12_000


@pytest.fixture(scope="module")
def decoders() -> Decoders:
    return Decoders()


def test_every_decoder_refuses_what_was_altered(decoders: Decoders) -> None:
    counts: Counter[str] = Counter()
    for number in range(COUNT // 2_000):
        counts += chunk(decoders, SEED, number, 2_000)
    assert counts.total() == COUNT
    assert {name.split(":")[0] for name in counts} == {target.name for target in decoders.targets}
    for finding in ("malformed", "wrong-log", "wrong-slice", "no-grant", "stale", "body-mismatch", "bad-signature"):
        assert counts[f"record: {finding}"] + counts[f"header: {finding}"] > 0, finding


def test_the_good_ones_are_taken(decoders: Decoders) -> None:
    targets = {target.name: target for target in decoders.targets}
    for name in ("record", "header", "body", "export", "checkpoint"):
        for sample in targets[name].samples:
            with pytest.raises(Accepted):
                targets[name].refuse(sample)


@pytest.mark.parametrize("claimed", [2**16 - 1, 2**24, 2**32 - 1])
def test_a_claimed_length_takes_no_memory(claimed: int) -> None:
    """A length is compared with what is there before anything is made of it."""
    front = verify.EXPORT_MAGIC + bytes(32) + (1).to_bytes(4) + bytes(32)
    tracemalloc.start()
    try:
        for decode, data in (
            (parse, (200).to_bytes(2) + bytes(264) + claimed.to_bytes(4)),
            (parse_event_header, b"\0\4a.bc\0\1\0" + claimed.to_bytes(4) + b"\xff"),
            (read_export, front + claimed.to_bytes(4)),
        ):
            with pytest.raises(Malformed):
                decode(data)
        assert check_export(front + claimed.to_bytes(4), bytes(32))["finding"] == "malformed"
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_a_record_over_the_limit_is_not_looked_at() -> None:
    with pytest.raises(Malformed, match="over the limit"):
        parse(bytes(MAX_RECORD + 1))


@pytest.mark.parametrize(
    ("where", "name", "planted"),
    [
        (verify, "signature_holds", lambda *_: True),
        (verify._Reader, "end", lambda self: None),
    ],
    ids=["signature not checked", "trailing bytes taken"],
)
def test_a_planted_bug_is_caught(
    where: Any, name: str, planted: Any, decoders: Decoders, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, name, planted)
    with pytest.raises(Accepted):
        chunk(decoders, SEED, 0, 10_000)
