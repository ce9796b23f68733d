"""Project Wycheproof's vectors through our own functions, every one of them counted."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from agent_party.eventstore import sealing
from agent_party.eventstore.errors import PayloadError
from agent_party.eventstore.verify import key_is_sound, signature_holds

FOLDER = Path(__file__).resolve().parents[1] / "vectors" / "wycheproof"


def groups(name: str) -> list[dict[str, Any]]:
    found = json.loads((FOLDER / name).read_text(encoding="utf-8"))
    assert sum(len(group["tests"]) for group in found["testGroups"]) == found["numberOfTests"]
    groups: list[dict[str, Any]] = found["testGroups"]
    return groups


def hexed(value: dict[str, Any], *names: str) -> list[bytes]:
    return [bytes.fromhex(value[name]) for name in names]


def test_ed25519() -> None:
    """libsodium's rule, which is ours, takes every valid signature of the set and no invalid one."""
    counted: Counter[str] = Counter()
    for group in groups("ed25519_test.json"):
        key = bytes.fromhex(group["publicKey"]["pk"])
        assert key_is_sound(key)
        for vector in group["tests"]:
            message, signature = hexed(vector, "msg", "sig")
            assert signature_holds(key, message, signature) == (vector["result"] == "valid"), vector["tcId"]
            counted[vector["result"]] += 1
    assert counted == {"valid": 88, "invalid": 63}


def test_aes_gcm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sealing has one nonce, so a vector's is put in its place; nonces that the library refuses are counted apart."""
    counted: Counter[str] = Counter()
    for group in groups("aes_gcm_test.json"):
        ours = (group["keySize"], group["ivSize"], group["tagSize"]) == (256, 96, 128)
        for vector in group["tests"]:
            key, nonce, bound, plaintext, ciphertext, tag = hexed(vector, "key", "iv", "aad", "msg", "ct", "tag")
            monkeypatch.setattr(sealing, "_NONCE", nonce)
            kind = f"{'ours' if ours else 'other sizes'}, {vector['result']}"
            if not 8 <= len(nonce) <= 128:
                # Nonces of another length than 12 bytes never occur here; the library under us refuses the outermost.
                with pytest.raises(ValueError, match="8 and 128 bytes"):
                    sealing.decrypt(key, ciphertext + tag, bound)
                kind = "nonce outside 8 to 128 bytes"
            elif vector["result"] == "valid":
                assert sealing.encrypt(key, plaintext, bound) == ciphertext + tag, vector["tcId"]
                assert sealing.decrypt(key, ciphertext + tag, bound) == plaintext, vector["tcId"]
            else:
                with pytest.raises(PayloadError):
                    sealing.decrypt(key, ciphertext + tag, bound)
            counted[kind] += 1
    assert counted == AES_GCM
    assert sum(counted.values()) == 316


AES_GCM = {
    "ours, valid": 39,
    "ours, invalid": 27,
    "other sizes, valid": 163,
    "other sizes, invalid": 54,
    "nonce outside 8 to 128 bytes": 33,
}


def test_hkdf_sha256() -> None:
    counted: Counter[str] = Counter()
    for group in groups("hkdf_sha256_test.json"):
        for vector in group["tests"]:
            secret, salt, info, wanted = hexed(vector, "ikm", "salt", "info", "okm")
            extracted = sealing.hkdf_extract(salt, secret)
            if vector["result"] == "valid":
                assert sealing.hkdf_expand(extracted, info, vector["size"]) == wanted, vector["tcId"]
            else:
                with pytest.raises(PayloadError):
                    sealing.hkdf_expand(extracted, info, vector["size"])
            counted[vector["result"]] += 1
    assert counted == {"valid": 83, "invalid": 3}


def test_hmac_sha256() -> None:
    """HKDF's extract step is HMAC, with the salt for its key."""
    counted: Counter[str] = Counter()
    for group in groups("hmac_sha256_test.json"):
        for vector in group["tests"]:
            key, message, tag = hexed(vector, "key", "msg", "tag")
            made = sealing.hkdf_extract(key, message)[: group["tagSize"] // 8]
            assert (made == tag) == (vector["result"] == "valid"), vector["tcId"]
            counted[vector["result"]] += 1
    assert counted == {"valid": 66, "invalid": 108}


def test_an_event_key_is_hkdf() -> None:
    """The one-block shortcut that sealing takes is RFC 5869's expand."""
    for number in (0, 1, 999, sealing.METADATA):
        info = b"agent-party event key\0" + number.to_bytes(2)
        assert sealing.event_key(bytes(range(32)), number) == sealing.hkdf_expand(bytes(range(32)), info, 32)


@pytest.mark.parametrize("name", ["encrypt", "decrypt"])
def test_a_vector_can_fail(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted bug: associated data that is not bound."""
    whole = getattr(sealing, name)
    monkeypatch.setattr(sealing, name, lambda key, content, bound: whole(key, content, b""))
    with pytest.raises((AssertionError, PayloadError)):
        test_aes_gcm(monkeypatch)
