"""The two requests of which every append is made, as bytes: produce (version 7) and fetch (version 11).

aiokafka's connection carries them like its own, which describe themselves field by field: that copies a batch five
times, and takes longer for a small one than everything else that is done with it. Brokers from 2.3 on know both.
"""

import struct
from collections.abc import Mapping
from io import BytesIO
from typing import NamedTuple, Self

_ACKS_ALL, _UNCOMMITTED = -1, 0
_HEADER, _COUNT, _SIZE = struct.Struct(">hhi"), struct.Struct(">i"), struct.Struct(">h")
_PRODUCE, _PRODUCED = struct.Struct(">hhii"), struct.Struct(">ihq")
_FETCH, _WANTED, _FETCHED = struct.Struct(">iiiibiii"), struct.Struct(">iiqqi"), struct.Struct(">ihqqqi")
_NO_SESSION = 0, -1
_BEFORE_TOPICS, _ABORTED = 14, 16
"""Bytes of an answer to a fetch before its topics: correlation id, throttle time, error, session; of a transaction."""


class Header(NamedTuple):
    """What stands in front of an answer."""

    correlation_id: int


class Placed(NamedTuple):
    """``code``: the leader's error code; ``offset``: of the batch's first record, or -1."""

    code: int
    offset: int

    @classmethod
    def decode(cls, answer: BytesIO) -> Self:
        """From an answer for one lane."""
        data = answer.getvalue()
        at = _after_name(data, 8) + 4
        _, code, offset = _PRODUCED.unpack_from(data, at)
        return cls(code, offset)


class Answer(NamedTuple):
    """``code``: the leader's error code; ``high``: the lane's end, as far as all its replicas have it."""

    code: int
    high: int
    start: int
    raw: bytes


class Answers(dict[int, Answer]):
    """Of each lane that was asked for."""

    @classmethod
    def decode(cls, answer: BytesIO) -> Self:
        """From an answer for lanes of one topic; without any, if the broker has not come so far."""
        data, found = answer.getvalue(), cls()
        (topics,) = _COUNT.unpack_from(data, _BEFORE_TOPICS)
        if topics <= 0:
            return found
        at = _after_name(data, _BEFORE_TOPICS + 4)
        (lanes,) = _COUNT.unpack_from(data, at)
        at += 4
        for _ in range(lanes):
            lane, code, high, _, start, aborted = _FETCHED.unpack_from(data, at)
            at += _FETCHED.size + max(aborted, 0) * _ABORTED + 4
            (size,) = _COUNT.unpack_from(data, at)
            at += 4
            found[lane] = Answer(code, high, start, data[at : at + max(size, 0)])
            at += max(size, 0)
        return found


class Request:
    """What aiokafka's connection asks of a request, and of what it makes of one."""

    def __init__(self, key: int, version: int, body: list[bytes], answer: type[Placed] | type[Answers]) -> None:
        self._key, self._version, self.RESPONSE_TYPE = key, version, answer
        self._body = body
        self._whole = b""

    def prepare(self, versions: Mapping[int, tuple[int, int]]) -> Self:
        """Itself, if the broker knows this version."""
        least, most = versions.get(self._key, (0, 0))
        if not least <= self._version <= most:
            from aiokafka.errors import IncompatibleBrokerVersion

            raise IncompatibleBrokerVersion(f"request {self._key} version {self._version}: it needs Kafka 2.3 or newer")
        return self

    def build_request_header(self, correlation_id: int, client_id: str) -> Self:
        """Itself, too: what comes first is all of it, so that it is put together once."""
        head = _HEADER.pack(self._key, self._version, correlation_id) + _name(client_id)
        self._whole = b"".join((head, *self._body))
        return self

    def encode(self) -> bytes:
        """Header and body when asked first, as for the header; then nothing."""
        whole, self._whole = self._whole, b""
        return whole

    @staticmethod
    def parse_response_header(answer: BytesIO) -> Header:
        """The answer's header; what is decoded looks at all of it."""
        return Header(*_COUNT.unpack_from(answer.getbuffer()))


def produce(topic: str, lane: int, batch: bytes, patience: int) -> Request:
    """Place a batch at a lane's end, acknowledged by all replicas in sync within ``patience`` milliseconds."""
    head = _PRODUCE.pack(-1, _ACKS_ALL, patience, 1) + _name(topic)
    return Request(0, 7, [head, struct.pack(">iii", 1, lane, len(batch)), batch], Placed)


def fetch(topic: str, offsets: Mapping[int, int], most: int, hold: int, *, all_lanes: int, epoch: int = -1) -> Request:
    """What stands behind these offsets, ``most`` bytes of each lane and ``all_lanes`` in all, or one batch; held back
    for ``hold`` milliseconds while there is nothing. ``epoch``: only a leader of this epoch has an answer."""
    head = _FETCH.pack(-1, hold, 1, all_lanes, _UNCOMMITTED, *_NO_SESSION, 1) + _name(topic)
    wanted = [_WANTED.pack(lane, epoch, offset, -1, most) for lane, offset in offsets.items()]
    return Request(1, 11, [head, _COUNT.pack(len(wanted)), *wanted, _COUNT.pack(0), _SIZE.pack(0)], Answers)


def _name(text: str) -> bytes:
    encoded = text.encode()
    return _SIZE.pack(len(encoded)) + encoded


def _after_name(data: bytes, at: int) -> int:
    (size,) = _SIZE.unpack_from(data, at)
    return at + 2 + int(size)
