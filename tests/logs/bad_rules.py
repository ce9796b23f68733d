"""Exports whose records are well formed and break the rule: grants, chains, signatures, keys, rights, limits."""

import hashlib
from collections.abc import Iterator
from typing import Any

from nacl.bindings import crypto_core_ed25519_add, crypto_scalarmult_ed25519_base_noclamp

from agent_party.eventstore.commit import SigningKey
from agent_party.eventstore.verify import SIGN_TAG, parse
from tests.logs.making import Holder, Making, altered, framed, joined, packed
from tests.logs.scene import Bad, Scene, bad

ORDER = 2**252 + 27742317777372353535851937790883648493
IDENTITY_POINT = bytes([1]) + bytes(31)
SMALL_ORDER = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
NOT_CANONICAL = bytes.fromhex("f0" + "ff" * 30 + "7f")
NOT_ON_THE_CURVE = bytes([2]) + bytes(31)


def grants(scene: Scene) -> Iterator[Bad]:
    """Records under a grant that is not in force there."""
    making, raws = scene.making, scene.raws
    last, stranger = scene.next_a(), making.new_key()
    ungranted = {
        "unknown": altered(last, stranger, grant=bytes(range(32))),
        "of_another_stream": altered(last, scene.b.key, grant=scene.b.grant),
        "certificate_as_grant": altered(last, making.issuer, grant=making.certificate(b"note/a")),
        "root_writes_data": altered(last, making.root, grant=bytes(32)),
    }
    yield from bad(scene, "no-grant", 5, **{name: scene.plus(raw) for name, raw in ungranted.items()})
    payload = b"\1" + stranger.public + bytes(16)
    uncertified = {
        "issuer_not_certified": making.controlling(b"note/a", b"grant", payload, key=stranger, grant=bytes(range(32))),
        "owner_grants_on": making.controlling(b"note/a", b"grant", payload, key=scene.a.key, grant=scene.a.grant),
    }
    yield from bad(scene, "no-grant", 5, **{name: scene.plus(raw) for name, raw in uncertified.items()})
    yield from bad(scene, "no-grant", 1, grant_deleted=scene.framed([raws[0], *raws[2:]]))
    yield from bad(scene, "no-grant", 0, certificate_deleted=scene.framed(raws[1:]))


def ended(scene: Scene) -> Iterator[Bad]:
    making = scene.making
    taken = making.controlling(b"note/a", b"grant", b"\1" + making.new_key().public + bytes(16))
    after = altered(scene.next_a(), scene.a.key, prev=parse(taken).commit)
    data = scene.framed([*scene.raws[:5], taken, after, *scene.raws[5:]])
    yield from bad(scene, "no-grant", 6, ended_by_the_next_owner=data)
    fence = making.controlling(b"note/a", b"fence", scene.a.grant, prev=scene.a.grant)
    data = scene.framed([*scene.raws[:5], fence, scene.next_a(), *scene.raws[5:]])
    yield from bad(scene, "no-grant", 6, ended_by_a_fence=data)
    old = making.certificate(b"note/a")
    revoke = making.controlling(b"keys/0", b"revoke", old)
    late = making.controlling(b"note/c", b"grant", b"\1" + making.new_key().public + bytes(16))
    yield from bad(scene, "no-grant", 9, issuer_revoked=scene.framed([*scene.raws, revoke, late]))


def chains(scene: Scene) -> Iterator[Bad]:
    """Records out of their chain, and records under a format that is not in force."""
    raws, making = scene.raws, scene.making
    genesis = making.data(scene.a, prev=parse(raws[1]).header.prev)
    yield from bad(
        scene,
        "unlinked",
        3,
        commit_deleted=scene.framed([*raws[:3], *raws[4:]]),
        commits_swapped=scene.framed([*raws[:3], raws[4], raws[3], *raws[5:]]),
    )
    yield from bad(scene, "unlinked", 5, prev_is_genesis=scene.plus(genesis))
    other = making.data(scene.a, prev=making.state(b"note/b").head)
    yield from bad(scene, "unlinked", 5, prev_of_another_stream=scene.plus(other))
    skipped = making.data(scene.a, revision=5)
    yield from bad(scene, "unlinked", 5, revision_skipped=scene.plus(skipped))
    yield from bad(scene, "unlinked", 2, grant_twice=scene.framed([*raws[:2], raws[1], *raws[2:]]))
    yield from bad(scene, "unlinked", 1, certificate_twice=scene.framed([raws[0], *raws]))
    behind = making.controlling(
        b"note/a", b"grant", b"\1" + making.new_key().public + bytes(16), prev=parse(raws[3]).commit
    )
    yield from bad(scene, "unlinked", 5, grant_that_lost_to_data=scene.plus(behind))
    yield from bad(scene, "stale", 3, commit_twice=scene.framed([*raws[:3], *raws[2:]]))
    yield from bad(scene, "stale", 5, revision_taken=scene.plus(making.data(scene.a, revision=3)))
    fence = making.controlling(b"note/a", b"fence", scene.a.grant, prev=scene.a.grant)
    yield from bad(scene, "stale", 6, fence_twice=scene.framed([*raws[:5], fence, fence, *raws[5:]]))
    nothing = making.controlling(b"note/a", b"fence", scene.b.grant, prev=scene.b.grant)
    yield from bad(scene, "stale", 5, fence_of_another_streams_grant=scene.plus(nothing))
    at_head = making.controlling(b"note/a", b"fence", scene.a.grant)
    yield from bad(scene, "stale", 5, fence_that_names_the_head=scene.plus(at_head))
    upgrade = making.controlling(b"keys/0", b"upgrade", b"\2")
    late = scene.framed(
        [*raws, upgrade, making.controlling(b"note/c", b"grant", b"\1" + scene.a.key.public + bytes(16))]
    )
    yield from bad(scene, "wrong-format", 9, old_one_after_an_upgrade=late)
    after = making.controlling(b"keys/0", b"upgrade", b"\xff")
    yield from bad(scene, "wrong-format", 9, old_data_after_an_upgrade=scene.framed([*raws, after, scene.next_a()]))
    new = altered(
        making.controlling(b"note/c", b"grant", b"\1" + scene.a.key.public + bytes(16)), making.issuer, format=2
    )
    yield from bad(scene, "malformed", 9, format_that_came_by_upgrade=scene.framed([*raws, upgrade, new]))
    older = altered(scene.next_a(), scene.a.key, format=0)
    yield from bad(scene, "wrong-format", 5, format_0_in_a_slice_that_began_in_1=scene.plus(older))
    began = Making(106, format=0)
    holder = began.grant(b"note/a")
    began.append(holder)
    newer = altered(began.data(holder), holder.key, format=1)
    data = framed(began.log, [*began.records, newer])
    yield Bad("wrong-format-1-in-a-slice-that-began-in-0", data, began.root.public, "wrong-format", 3)


def seals(scene: Scene) -> Iterator[Bad]:
    """What may not stand in a sealed slice, and seals that do not open."""
    making, raws, issuer = scene.making, scene.raws, scene.making.issuer
    certificate, public = making.certificate(b"note/a"), making.new_key().public
    seal = making.controlling(b"keys/0", b"seal", bytes(4))
    mark = parse(seal).commit
    after = {
        "data_after_a_seal": scene.next_a(),
        "grant_after_a_seal": making.controlling(b"note/c", b"grant", b"\1" + public + bytes(16)),
        "fence_after_a_seal": making.controlling(b"note/a", b"fence", scene.a.grant, prev=scene.a.grant),
        "certificate_after_a_seal": making.controlling(b"keys/0", b"certify", public, prev=mark),
        "seal_after_a_seal": making.controlling(b"keys/0", b"seal", bytes(4), prev=mark),
        "open_on_another_stream": making.controlling(b"note/a", b"open", mark),
    }
    yield from bad(scene, "sealed", 9, **{name: scene.framed([*raws, seal, raw]) for name, raw in after.items()})
    opens = {
        "open_of_another_seal": making.controlling(b"keys/0", b"open", bytes(32), prev=mark),
        "open_by_an_issuer": making.controlling(b"keys/0", b"open", mark, prev=mark, key=issuer, grant=certificate),
    }
    yield from bad(scene, "not-allowed", 9, **{name: scene.framed([*raws, seal, raw]) for name, raw in opens.items()})
    behind = making.controlling(b"keys/0", b"open", mark)
    yield from bad(scene, "unlinked", 9, open_that_names_an_older_head=scene.framed([*raws, seal, behind]))
    opened = making.controlling(b"keys/0", b"open", mark, prev=mark)
    twice = making.controlling(b"keys/0", b"open", mark, prev=parse(opened).commit)
    yield from bad(scene, "not-allowed", 10, opened_twice=scene.framed([*raws, seal, opened, twice]))
    unsealed = {
        "open_of_what_is_not_sealed": (b"keys/0", b"open", bytes(32), None),
        "seal_by_an_issuer": (b"keys/0", b"seal", bytes(4), issuer),
    }
    for name, (stream, kind, payload, key) in unsealed.items():
        raw = making.controlling(stream, kind, payload, key=key, grant=certificate if key else None)
        yield from bad(scene, "not-allowed", 8, **{name: scene.framed([*raws, raw])})
    yield from bad(scene, "not-allowed", 5, seal_elsewhere=scene.plus(making.controlling(b"note/a", b"seal", bytes(4))))


def signatures(scene: Scene) -> Iterator[Bad]:
    """Signatures that do not hold."""
    raw, key, making = scene.next_a(), scene.a.key, scene.making
    record = parse(raw)
    head, body, good = packed(record.header), record.body, record.signature
    scalar = int.from_bytes(good[32:], "little") + ORDER
    flipped = {
        f"bit_{bit}": good[: bit // 8] + bytes([good[bit // 8] ^ 1 << bit % 8]) + good[bit // 8 + 1 :]
        for bit in (0, 300, 511)
    }
    signatures = flipped | {
        "zero": bytes(64),
        "s_plus_l": good[:32] + scalar.to_bytes(32, "little"),
        "r_of_small_order": IDENTITY_POINT + good[32:],
        "r_not_canonical": NOT_CANONICAL + good[32:],
        "r_of_mixed_order": _cofactored(key, SIGN_TAG + record.commit),
        "of_the_record_before": parse(scene.raws[4]).signature,
        "without_tag": key.sign(record.commit),
        "over_the_header": key.sign(SIGN_TAG + head),
        "by_an_ungranted_key": making.new_key().sign(SIGN_TAG + record.commit),
        "by_the_root": making.root.sign(SIGN_TAG + record.commit),
        "by_the_owner_of_another_stream": scene.b.key.sign(SIGN_TAG + record.commit),
    }
    yield from bad(
        scene, "bad-signature", 5, **{name: scene.plus(joined(head, value, body)) for name, value in signatures.items()}
    )
    fields: dict[str, Any] = {
        "time": 0,
        "commit_id": bytes(16),
        "salt": bytes(32),
        "correlation": bytes(16),
        "prev": bytes(32),
    }
    for name, value in fields.items():
        forged = joined(packed(record.header._replace(**{name: value})), good, body)
        yield from bad(scene, "bad-signature", 5, **{f"{name}_altered".replace("_", "-"): scene.plus(forged)})
    grant = parse(scene.raws[1])
    by_owner = joined(packed(grant.header), key.sign(SIGN_TAG + grant.commit), grant.body)
    yield from bad(scene, "bad-signature", 1, key_taken_from_the_record=scene.with_(1, by_owner))
    claimed = making.controlling(b"note/a", b"grant", b"\1" + key.public + bytes(16), key=key, grant=bytes(32))
    yield from bad(scene, "bad-signature", 5, not_the_root=scene.plus(claimed))


def _cofactored(key: SigningKey, message: bytes) -> bytes:
    """A signature that holds only for verifiers who multiply by the cofactor; only the key's holder can make one."""
    clamped = bytearray(hashlib.sha512(key.secret[:32]).digest()[:32])
    clamped[0] &= 248
    clamped[31] = clamped[31] & 127 | 64
    nonce = int.from_bytes(hashlib.sha512(b"nonce" + message).digest(), "little") % ORDER
    point = crypto_scalarmult_ed25519_base_noclamp(nonce.to_bytes(32, "little"))
    mixed = crypto_core_ed25519_add(point, SMALL_ORDER)
    challenge = int.from_bytes(hashlib.sha512(mixed + key.public + message).digest(), "little")
    answer = (nonce + challenge * int.from_bytes(clamped, "little")) % ORDER
    return mixed + answer.to_bytes(32, "little")


def keys(scene: Scene) -> Iterator[Bad]:
    """Keys that may never be granted or certified."""
    making = scene.making
    mixed = crypto_core_ed25519_add(making.new_key().public, SMALL_ORDER)
    keys = {
        "identity_point": IDENTITY_POINT,
        "small_order": SMALL_ORDER,
        "mixed_order": mixed,
        "not_canonical": NOT_CANONICAL,
        "not_on_the_curve": NOT_ON_THE_CURVE,
    }
    for name, public in keys.items():
        granted = making.controlling(b"note/a", b"grant", b"\1" + public + bytes(16))
        yield from bad(scene, "not-allowed", 5, **{f"grant_to_{name}": scene.plus(granted)})
        certified = making.controlling(b"keys/0", b"certify", public)
        yield from bad(scene, "not-allowed", 8, **{f"certify_{name}": scene.framed([*scene.raws, certified])})


def rights(scene: Scene) -> Iterator[Bad]:
    """Control commits, well signed, by those who may not, or where they may not stand."""
    making, issuer = scene.making, scene.making.issuer
    certificate, public = making.certificate(b"note/a"), making.new_key().public
    on_keys: dict[str, tuple[bytes, bytes, SigningKey | None]] = {
        "certify_by_an_issuer": (b"certify", public, issuer),
        "revoke_by_an_issuer": (b"revoke", certificate, issuer),
        "upgrade_by_an_issuer": (b"upgrade", b"\2", issuer),
        "revoke_of_nothing": (b"revoke", bytes(32), None),
        "upgrade_to_0": (b"upgrade", b"\0", None),
        "upgrade_to_its_own": (b"upgrade", b"\1", None),
        "grant_on_keys": (b"grant", b"\1" + public + bytes(16), None),
        "fence_on_keys": (b"fence", certificate, None),
        "erase_on_keys": (b"erase", bytes(16), None),
    }
    for name, (kind, payload, key) in on_keys.items():
        raw = making.controlling(b"keys/0", kind, payload, key=key, grant=certificate if key else None)
        yield from bad(scene, "not-allowed", 8, **{name: scene.framed([*scene.raws, raw])})
    looks_like = making.controlling(b"keys/01", b"certify", public, key=making.root, grant=bytes(32))
    data = scene.framed([scene.raws[0], looks_like, *scene.raws[1:]])
    yield from bad(scene, "not-allowed", 1, certify_on_a_name_like_a_slice_stream=data)
    elsewhere = {
        "certify_elsewhere": (b"certify", public),
        "revoke_elsewhere": (b"revoke", certificate),
        "upgrade_elsewhere": (b"upgrade", b"\2"),
        "writer_of_a_plain_stream": (b"grant", b"\2" + public + bytes(16)),
        "role_0": (b"grant", b"\0" + public + bytes(16)),
        "role_3": (b"grant", b"\3" + public + bytes(16)),
    }
    for name, (kind, payload) in elsewhere.items():
        yield from bad(scene, "not-allowed", 5, **{name: scene.plus(making.controlling(b"note/a", kind, payload))})
    inbox = making.controlling(b"inbox/a", b"grant", b"\1" + public + bytes(16))
    yield from bad(scene, "not-allowed", 1, owner_of_an_inbox=scene.framed([scene.raws[0], inbox, *scene.raws[1:]]))


def limits(scene: Scene) -> Iterator[Bad]:
    """One more than a slice or an inbox may have."""
    making = Making(104)
    same = making.new_key()
    for _ in range(63):
        making.certify(0, same)
    one_more = making.controlling(b"keys/0", b"certify", same.public)
    data = framed(making.log, [*making.records, one_more])
    yield Bad("not-allowed-65-issuing-keys", data, making.root.public, "not-allowed", 64)
    making = Making(105)
    holders: list[Holder] = [making.grant(b"inbox/a", same) for _ in range(256)]
    one_more = making.controlling(b"inbox/a", b"grant", b"\2" + holders[0].key.public + bytes(16))
    data = framed(making.log, [*making.records, one_more])
    yield Bad("not-allowed-257-writers", data, making.root.public, "not-allowed", 257)
