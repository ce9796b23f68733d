"""Logs that hold, one for each thing the format can say. What `tests/vectors/log-format/good` is made of."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from agent_party.eventstore.verify import MAX_EVENTS, Cause, parse, slice_of
from tests.logs.making import Making, Told, altered, event_head, rebodied

GOOD: dict[str, Callable[[], Making]] = {}


def good(make: Callable[[], Making]) -> Callable[[], Making]:
    GOOD[make.__name__.replace("_", "-")] = make
    return make


def good_logs() -> Iterator[tuple[str, Making]]:
    """Name and log of each vector."""
    for name, make in sorted(GOOD.items()):
        yield name, make()


@good
def empty() -> Making:
    return Making(1, certified=False)


@good
def keys_only() -> Making:
    return Making(2, slices=4)


@good
def one_commit() -> Making:
    making = Making(3)
    making.append(making.grant(b"note/a"))
    return making


@good
def several_events() -> Making:
    """1 to 9 events a commit: every shape of tree up to two levels more than a full one."""
    making = Making(4)
    holder = making.grant(b"note/a")
    for count in range(1, 10):
        making.append(holder, making.texts(count))
    return making


@good
def most_events() -> Making:
    making = Making(5)
    making.append(making.grant(b"note/a"), making.texts(MAX_EVENTS, sealed=False, size=4))
    return making


@good
def plaintext() -> Making:
    making = Making(6)
    making.append(making.grant(b"note/a"), making.texts(2, sealed=False) + making.texts(1) + making.texts(1, size=0))
    return making


@good
def claim_check() -> Making:
    """The second event's ciphertext is not in the record, only its hash is."""
    making = Making(7)
    holder = making.grant(b"note/a")
    making.append(holder, [*making.texts(1), *making.texts(1, size=500), *making.texts(1)], inline=100)
    return making


@good
def attachments() -> Making:
    making = Making(8)
    names = tuple(hashlib.sha256(bytes([n])).digest() for n in range(16))
    making.append(making.grant(b"note/a"), making.texts(1, attachments=names[:1]) + making.texts(1, attachments=names))
    return making


@good
def inbox_with_two_writers() -> Making:
    making = Making(9)
    first, second = making.grant(b"inbox/agent/a"), making.grant(b"inbox/agent/a")
    for holder in (first, second, second, first):
        making.append(holder)
    return making


@good
def takeover() -> Making:
    making = Making(10)
    for _ in range(3):
        holder = making.grant(b"task/t1")
        making.append(holder)
        making.append(holder)
    return making


@good
def fences() -> Making:
    """An owner fenced, then a new one; a writer of an inbox fenced while the other goes on. The head never moves."""
    making = Making(11)
    owner = making.grant(b"task/t1")
    making.append(owner)
    making.fence(owner)
    making.append(making.grant(b"task/t1"))
    first, second = making.grant(b"inbox/task/t1"), making.grant(b"inbox/task/t1")
    making.append(first)
    making.fence(first)
    making.append(second)
    return making


@good
def rotation_of_issuing_keys() -> Making:
    making = Making(12)
    making.append(making.grant(b"note/b"))
    making.issuer = making.new_key()
    making.certify()
    making.append(making.grant(b"note/a"))
    making.append(making.grant(b"note/b"))
    return making


@good
def revocation() -> Making:
    """What a key signed before its revocation stays, and the grants it gave go on."""
    making = Making(13)
    holder = making.grant(b"note/a")
    making.append(holder)
    old = making.certificate(b"note/a")
    making.issuer = making.new_key()
    making.certify()
    making.add(making.controlling(b"keys/0", b"revoke", old))
    making.append(holder)
    making.append(making.grant(b"note/b"))
    return making


@good
def root_signs_a_grant() -> Making:
    making = Making(14, certified=False)
    key = making.new_key()
    payload = b"\1" + key.public + bytes(16)
    making.add(making.controlling(b"note/a", b"grant", payload, key=making.root, grant=bytes(32)))
    return making


@good
def all_that_a_header_can_say() -> Making:
    """Digest, correlation, authority, cause and sealed metadata; on control commits too, but for the last."""
    making = Making(15)
    holder, other = making.grant(b"note/a"), making.grant(b"note/b")
    first = making.append(other, making.texts(3))
    random = making.ambient.random
    more: dict[str, Any] = {"digest": random(16), "correlation": random(16), "authority": random(32)}
    cause = Cause(b"note/b", 1, 2, first)
    for name, value in more.items():
        making.append(holder, **{name: value})
    making.append(holder, cause=cause)
    making.append(holder, cause=cause, **more)
    making.add(altered(making.data(holder), holder.key, meta=random(200), cause=cause, **more))
    making.add(altered(making.data(holder), holder.key, meta=random(4096)))
    grant = making.controlling(b"note/b", b"grant", b"\1" + making.new_key().public + bytes(16))
    making.add(altered(grant, making.issuer, cause=cause, **more))
    return making


@good
def field_commitments() -> Making:
    making = Making(16)
    holder = making.grant(b"note/a")
    root = making.ambient.random(32)
    told = Told(event_head(length=5, flags=2, more=root), b"12345")
    blob = Told(event_head(length=70_000, flags=3, attachments=2, more=root), making.ambient.random(32))
    making.add(rebodied(making.data(holder), holder.key, [told, blob]))
    return making


@good
def erasure() -> Making:
    making = Making(17)
    making.append(making.grant(b"note/a"))
    making.add(making.controlling(b"note/a", b"erase", making.data_key.id))
    return making


@good
def upgrade_at_the_end() -> Making:
    """Slice 0 stops at the upgrade, to what nobody knows yet; slice 1 goes on."""
    making = Making(18, slices=2)
    making.add(making.controlling(b"keys/0", b"upgrade", b"\2"))
    making.append(making.grant(b"note/f"))
    assert parse(making.records[-1]).header.slice == 1
    return making


@good
def format_0() -> Making:
    """A slice that began in format 0, and stays in it."""
    making = Making(26, format=0)
    holder = making.grant(b"note/a")
    making.append(holder, making.texts(3))
    making.append(holder)
    assert {parse(raw).header.format for raw in making.records} == {0}
    return making


@good
def upgrade_from_0() -> Making:
    """Slice 0 begins in format 0 and goes on in 1, slice 1 stays in 0, slices 2 and 3 begin in 1."""
    making = Making(27, slices=4, certified=False, format=0)
    making.certify(0)
    making.certify(1)
    homes = {slice_of(making.log, name): name for name in (b"note/%d" % number for number in range(20))}
    holder, other = making.grant(homes[0]), making.grant(homes[1])
    making.append(holder)
    making.add(making.controlling(b"keys/0", b"upgrade", b"\1"))
    making.append(holder)
    making.append(other)
    making.format = 1
    making.certify(2)
    making.certify(3)
    heads = [parse(raw).header for raw in making.records]
    assert [(head.slice, head.format) for head in heads[4:]] == [(0, 0), (0, 0), (0, 1), (1, 0), (2, 1), (3, 1)]
    return making


@good
def several_slices() -> Making:
    making = Making(19, slices=4)
    for name in (b"task/t3", b"task/t1", b"note/z", b"note/a", b"agent/writer", b"inbox/agent/writer", b"note/b"):
        making.append(making.grant(name))
    making.issuer = making.new_key()
    for part in range(4):
        making.certify(part)
    for name in (b"task/t1", b"note/a", b"agent/writer", b"zoo/z"):
        making.append(making.grant(name))
    return making


@good
def most_slices() -> Making:
    making = Making(20, slices=65_536)
    making.certify(65_535)
    making.certify(12_345)
    return making


@good
def longest_names() -> Making:
    making = Making(21)
    rest = b"/" + b"Z" * 64 + b"/" + b"~" * 64
    longest = b"a" * 32 + rest + b"/" + b"0" * (200 - 33 - len(rest))
    assert len(longest) == 200
    making.append(making.grant(longest), [making.texts()[0]._replace(type=b"a." + b"b" * 62)])
    making.append(making.grant(b"a/b/c/d/e/f/g"))
    making.append(making.grant(b"k-9/A.b_c~d-e"))
    return making


@good
def names_like_slice_streams() -> Making:
    """Only keys/N is one."""
    making = Making(23, slices=1)
    for name in (b"keys/x", b"keys/01", b"keys/0/a", b"keys/123456", b"inbox-not/a", b"notinbox/a"):
        making.append(making.grant(name))
    return making


@good
def times_that_jump_back() -> Making:
    making = Making(22)
    holder = making.grant(b"note/a")
    for time in (2**64 - 1, 0, 5):
        making.add(altered(making.data(holder), holder.key, time=time))
    return making


@good
def sealed_and_opened() -> Making:
    """Slice 0 goes to another lane, and to a third, and on with all that it holds; slice 1 never stops."""
    making = Making(24, slices=2)
    holder, other = making.grant(b"note/b"), making.grant(b"note/a")
    assert [parse(raw).header.slice for raw in making.records[-2:]] == [0, 1]
    for lane in (7, 2**32 - 1):
        making.append(holder)
        seal = making.add(making.controlling(b"keys/0", b"seal", lane.to_bytes(4)))
        making.append(other)
        making.add(making.controlling(b"keys/0", b"open", seal))
        making.append(holder)
    making.fence(holder)
    making.append(making.grant(b"note/b"))
    return making


@good
def sealed_at_the_end() -> Making:
    making = Making(25)
    making.append(making.grant(b"note/a"))
    making.add(making.controlling(b"keys/0", b"seal", bytes(4)))
    return making
