"""Produce and fetch, byte for byte as aiokafka's own: what is asked, and what is made of an answer."""

from io import BytesIO
from typing import Any

import pytest
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from aiokafka.protocol.produce import ProduceRequest, ProduceResponse_v7
from hypothesis import given
from hypothesis import strategies as st

from agent_party.eventstore.backends.kafka_wire import Answer, Answers, Placed, fetch, produce

VERSIONS = {0: (3, 7), 1: (4, 11)}
LANES = st.dictionaries(st.integers(0, 1_000), st.integers(0, 1 << 40), min_size=1, max_size=20)


def sent(request: Any) -> bytes:
    """As aiokafka's connection puts a request together."""
    prepared = request.prepare(VERSIONS)
    whole = prepared.build_request_header(correlation_id=17, client_id="someone").encode() + prepared.encode()
    assert isinstance(whole, bytes)
    return whole


def answered(body: bytes) -> BytesIO:
    """As it hands on an answer: with the correlation id in front."""
    return BytesIO((17).to_bytes(4) + body)


@given(st.integers(0, 1_000), st.binary(max_size=300))
def test_a_produce_request_is_the_drivers(lane: int, batch: bytes) -> None:
    theirs = ProduceRequest(None, -1, 4_000, [("agent.events", [(lane, batch)])])
    assert sent(produce("agent.events", lane, batch, 4_000)) == sent(theirs)


@given(LANES, st.integers(1, 1 << 24), st.integers(0, 500))
def test_a_fetch_request_is_the_drivers(offsets: dict[int, int], most: int, hold: int) -> None:
    wanted = [(lane, offset, most) for lane, offset in offsets.items()]
    theirs = FetchRequest(hold, 1, 1 << 24, 0, [("agent.events", wanted)])
    assert sent(fetch("agent.events", offsets, most, hold, all_lanes=1 << 24)) == sent(theirs)


def test_a_fetch_request_names_the_epoch_that_its_leader_must_have() -> None:
    theirs = FetchRequest(0, 1, 1, 0, [("agent.events", [(3, 5, 1)])]).prepare(VERSIONS)
    theirs.topics = [("agent.events", [(3, 9, 5, -1, 1)])]
    ours = sent(fetch("agent.events", {3: 5}, 1, 0, all_lanes=1, epoch=9))
    assert ours.endswith(theirs.encode())


@given(st.integers(-1, 100), st.integers(-1, 1 << 40))
def test_where_a_batch_was_placed(code: int, offset: int) -> None:
    answer = ProduceResponse_v7([("agent.events", [(3, code, offset, -1, 0)])], 25).encode()
    assert Placed.decode(answered(answer)) == (code, offset)


@given(st.lists(st.tuples(st.integers(-1, 100), st.integers(0, 9), st.binary(max_size=300)), max_size=9), st.booleans())
def test_what_a_fetch_brought(lanes: list[tuple[int, int, bytes]], aborted: bool) -> None:
    def transactions(count: int) -> list[tuple[int, int]] | None:
        return [(number, 7) for number in range(count)] if aborted else None

    parts = [(lane, code, 10, 9, 2, transactions(n), -1, raw) for lane, (code, n, raw) in enumerate(lanes)]
    found = Answers.decode(answered(FetchResponse_v11(25, 0, 0, [("agent.events", parts)]).encode()))
    assert found == {lane: Answer(code, 10, 2, raw) for lane, (code, _, raw) in enumerate(lanes)}


def test_a_fetch_that_brought_nothing() -> None:
    assert Answers.decode(answered(FetchResponse_v11(0, 70, 0, []).encode())) == {}
    nothing = [("agent.events", [(0, 3, -1, -1, -1, None, -1, None)])]
    assert Answers.decode(answered(FetchResponse_v11(0, 0, 0, nothing).encode())) == {0: Answer(3, -1, -1, b"")}


def test_an_answer_is_known_by_its_number() -> None:
    request = produce("agent.events", 0, b"", 1).prepare(VERSIONS)
    assert request.parse_response_header(answered(b"rest")).correlation_id == 17


@pytest.mark.parametrize("versions", [{}, {0: (3, 6), 1: (4, 10)}, {0: (8, 13), 1: (12, 18)}])
def test_a_broker_that_does_not_know_the_version_is_named(versions: dict[int, tuple[int, int]]) -> None:
    for request in (produce("agent.events", 0, b"", 1), fetch("agent.events", {0: 0}, 1, 0, all_lanes=1)):
        with pytest.raises(IncompatibleBrokerVersion, match="it needs Kafka"):
            request.prepare(versions)
