"""Exports that are wrong as bytes: files, frames, headers, bodies, and records that lie in the wrong place."""

from collections.abc import Iterator
from typing import Any

from agent_party.eventstore.verify import parse
from tests.logs.making import Making, Told, altered, canonical, event_head, framed, joined, packed, rebodied, signed
from tests.logs.scene import Bad, Scene, bad


def files(scene: Scene) -> Iterator[Bad]:
    """What is wrong with the file as a file."""
    data, making = scene.framed(scene.raws), scene.making
    log, count, last = making.log, len(scene.raws), len(scene.raws[-1])
    other, stranger = Making(101, certified=False), making.new_key().public
    yield from bad(scene, "not-an-export", 0, magic=b"agent-party export 1\n" + data[21:], text=b"hello, verifier" * 9)
    yield from bad(scene, "malformed", 0, empty=b"", cut_in_the_front=data[:50])
    yield Bad("wrong-root-of-the-reader", data, stranger, "wrong-root", 0)
    yield from bad(scene, "wrong-root", 0, in_the_file=framed(log._replace(root=stranger), scene.raws))
    yield from bad(scene, "wrong-root", 0, flipped=data[:21] + bytes([data[21] ^ 1]) + data[22:])
    yield from bad(
        scene,
        "wrong-log",
        0,
        nonce=framed(log._replace(nonce=other.log.nonce), scene.raws),
        number_of_slices=framed(log._replace(slices=2), scene.raws),
    )
    for slices in (0, 3, 131_072):
        yield from bad(scene, "malformed", 0, **{f"slices_{slices}": framed(log._replace(slices=slices), [])})
    yield from bad(
        scene,
        "malformed",
        count,
        no_terminator=data[:-36],
        no_checksum=data[:-32],
        cut_in_the_checksum=data[:-1],
        byte_after_the_end=data + b"\0",
    )
    yield from bad(scene, "malformed", count - 1, cut_in_a_record=data[: -36 - last // 2])
    yield from bad(scene, "malformed", 4, cut_in_a_length=data[: 89 + sum(len(raw) + 4 for raw in scene.raws[:4]) + 2])
    yield from bad(
        scene, "wrong-checksum", count, flipped=data[:-1] + bytes([data[-1] ^ 1]), zero=data[:-32] + bytes(32)
    )


def frames(scene: Scene) -> Iterator[Bad]:
    """What is wrong with a record's frame."""
    raw, key = scene.raws[2], scene.a.key
    record = parse(raw)
    head = packed(record.header)
    variants = {
        "byte_after_a_record": raw + b"\0",
        "record_cut": raw[:-1],
        "header_length_too_large": (len(head) + 1).to_bytes(2) + raw[2:],
        "header_length_too_small": (len(head) - 1).to_bytes(2) + raw[2:],
        "header_of_100_bytes": joined(head[:100], record.signature, record.body),
        "header_with_a_byte_more": signed(head + b"\0", record.body, key),
        "body_length_too_large": joined(head, record.signature, b"")[:-4] + b"\xff" * 4 + record.body,
        "record_of_one_byte": b"\0",
    }
    yield from bad(scene, "malformed", 2, **{name: scene.with_(2, made) for name, made in variants.items()})


def headers(scene: Scene) -> Iterator[Bad]:
    """Headers, well signed, that no reader may take."""
    key, raw = scene.a.key, scene.raws[2]
    wrong: dict[str, dict[str, Any]] = {
        "format_2": {"format": 2},
        "kind_0": {"kind": 0},
        "kind_3": {"kind": 3},
        "no_events": {"events": 0},
        "too_many_events": {"events": 1_001},
        "data_without_revision": {"revision": 0},
        "metadata_empty": {"flags": 48},
        "metadata_too_long": {"meta": bytes(4_097)},
        "flag_64": {"flags": 64 | 16},
        "flag_128": {"flags": 128 | 16},
    }
    for name, fields in wrong.items():
        yield from bad(scene, "malformed", 2, **{name: scene.with_(2, altered(raw, key, **fields))})
    names = (b"Note/a", b"note", b"note/", b"note/a\n", b"note//a", b"note/\xc3\xa9", b"1/a", b"a/" + b"b" * 65, b"")
    long = (b"a/b/c/d/e/f/g/h", b"a/" + b"/".join([b"c" * 49] * 4), b"note/a b", b"note/a%20")
    for number, stream in enumerate((*names, *long)):
        forged = altered(raw, key, stream=stream)
        yield from bad(scene, "malformed", 2, **{f"stream_name_{number}": scene.with_(2, forged)})
    grant, issuer = scene.raws[1], scene.making.issuer
    unfit: dict[str, dict[str, Any]] = {
        "revision": {"revision": 1},
        "two_events": {"events": 2},
        "a_salt": {"salt": bytes(32)},
        "metadata": {"meta": b"x"},
    }
    for name, fields in unfit.items():
        forged = altered(grant, issuer, **fields)
        yield from bad(scene, "malformed", 1, **{f"control_with_{name}": scene.with_(1, forged)})
    cause = packed(parse(raw).header, flags=24).removesuffix(parse(raw).header.salt) + b"\1!" + bytes(42) + bytes(32)
    yield from bad(scene, "malformed", 2, cause_is_no_stream=scene.with_(2, signed(cause, parse(raw).body, key)))


def bodies(scene: Scene) -> Iterator[Bad]:
    """Bodies that are not what the header says, or that no header may stand over."""
    raw, key = scene.raws[2], scene.a.key
    record, other = parse(raw), parse(scene.raws[3])
    head, body = packed(record.header), record.body
    size = 2 + int.from_bytes(body[:2])
    schema = 2 + 2 + len(b"note.written")
    half = len(body) // 2

    def put(new: bytes) -> bytes:
        return scene.with_(2, joined(head, record.signature, new))

    yield from bad(
        scene,
        "body-mismatch",
        2,
        bit_in_a_payload=put(body[:-1] + bytes([body[-1] ^ 1])),
        schema_version=put(body[: schema + 1] + b"\2" + body[schema + 2 :]),
        body_of_another_commit=put(other.body),
        events_swapped=put(body[half:] + body[:half]),
        first_event_twice=put(body[:half] * 2),
        root_of_another_body=scene.with_(2, altered(raw, key, body_root=other.header.body_root)),
    )
    yield from bad(
        scene,
        "malformed",
        2,
        one_event_too_few=put(body[:half]),
        one_event_too_many=put(body + body[:half]),
        event_length=put(body[: size - 2] + b"\xff" + body[size - 1 :]),
        no_body=put(b""),
        byte_after_the_body=put(body + b"\0"),
    )
    events = {
        "event_flag": Told(event_head(flags=4), b""),
        "suite_2": Told(event_head(suite=2), b""),
        "schema_0": Told(event_head(schema=0), b""),
        "type_without_dot": Told(event_head(b"note"), b""),
        "type_in_capitals": Told(event_head(b"Note.Written"), b""),
        "type_with_newline": Told(event_head(b"note.written\n"), b""),
        "type_of_65": Told(event_head(b"a." + b"b" * 63), b""),
        "seventeen_attachments": Told(event_head(attachments=17), b""),
        "event_header_with_a_byte_more": Told(event_head(more=b"\0"), b""),
        "event_header_too_short": Told(event_head()[:-1], b""),
        "sealed_without_key_id": Told(event_head(suite=1), b""),
        "control_type_in_a_data_commit": Told(event_head(b"grant", 49), bytes([1]) + bytes(48)),
    }
    for name, told in events.items():
        yield from bad(scene, "malformed", 2, **{name: scene.with_(2, rebodied(raw, key, [told]))})


def controls(scene: Scene) -> Iterator[Bad]:
    grant, issuer = scene.raws[1], scene.making.issuer
    payload = parse(grant).body[-49:]
    events = {
        "data_type_in_a_control_commit": Told(event_head(length=49), payload),
        "grant_of_48_bytes": Told(event_head(b"grant", 48), payload[:48]),
        "grant_of_50_bytes": Told(event_head(b"grant", 50), payload + b"\0"),
        "grant_in_the_blobs": Told(event_head(b"grant", 49, flags=1), payload[:32]),
        "grant_with_fields": Told(event_head(b"grant", 49, flags=2, more=bytes(32)), payload),
        "grant_with_an_attachment": Told(event_head(b"grant", 49, attachments=1), payload),
        "grant_that_is_sealed": Told(event_head(b"grant", 49, suite=1, sealed=bytes(48)), payload),
        "unknown_control": Told(event_head(b"promote", 49), payload),
    }
    for name, told in events.items():
        yield from bad(scene, "malformed", 1, **{name: scene.with_(1, rebodied(grant, issuer, [told]))})


def places(scene: Scene) -> Iterator[Bad]:
    """Records of another log, in another slice, in another order."""
    making = Making(102, slices=4)
    holder = making.grant(b"note/a")
    raw = making.data(holder)
    part, root = parse(raw).header.slice, making.root.public
    before = canonical(making.records)
    number = next(n for n, kept in enumerate(before) if kept == making.records[-1])
    for name, wrong in (("next", (part + 1) % 4), ("beyond_the_last", 4)):
        forged = altered(making.records[-1], making.issuer, slice=wrong)
        data = framed(making.log, [*before[:number], forged, *before[number + 1 :]])
        yield Bad(f"wrong-slice-{name.replace('_', '-')}", data, root, "wrong-slice", number)
    beyond = altered(making.records[0], making.root, slice=4, stream=b"keys/4")
    yield Bad(
        "wrong-slice-keys-beyond-the-last", framed(making.log, [*before, beyond]), root, "wrong-slice", len(before)
    )
    swapped = altered(making.records[0], making.root, stream=b"keys/1")
    yield Bad("wrong-slice-keys-of-another", framed(making.log, [swapped, *before[1:]]), root, "wrong-slice", 0)
    backwards = [raw for raw in making.records[:4] for _ in (0,)][::-1]
    yield Bad("wrong-order-of-slices", framed(making.log, backwards), root, "wrong-order", 1)
    raws = scene.raws
    yield from bad(scene, "wrong-order", 4, of_streams=scene.framed([raws[0], *raws[5:], *raws[1:5]]))
    yield from bad(
        scene, "wrong-order", 3, of_commits_of_two_streams=scene.framed([raws[0], raws[1], raws[5], *raws[2:5]])
    )
    twin = Making(103)
    stranger = twin.grant(b"note/a")
    yield from bad(scene, "wrong-log", 1, grant_of_another=scene.with_(1, twin.records[1]))
    yield from bad(scene, "wrong-log", 5, data_of_another=scene.plus(twin.data(stranger)))
    renamed = altered(scene.next_a(), scene.a.key, log_id=twin.log.log_id)
    yield from bad(scene, "wrong-log", 5, named_by_its_writer=scene.plus(renamed))
