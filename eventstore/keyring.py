"""Root, issuing, checkpoint and people's keys: a folder that only its owner may read.

    STATE/journals/HASH.json          which log belongs to which journal address (see `Pinned`)
    STATE/logs/LOG/*.key              32-byte seeds: root, issuing-N, checkpoint, wrapping, index
    STATE/logs/LOG/keys.db            wrapped data keys (see `datakeys`)
    STATE/logs/LOG/checkpoint         the remembered checkpoint (see `audit`)
    STATE/people/PERSON.key           a person's signing key

STATE is ``$PARTY_STATE_DIR``, else ``$XDG_STATE_HOME/agent-party``, else ``~/.local/state/agent-party``. A key
service (KMS) is another implementation of the same few methods.
"""

import contextlib
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from .commit import SigningKey
from .errors import KeyringError, KeyringPermissionsError, WrongKeyError
from .verify import Identity, identity

_TICK = 100_000_000
"""Nanoseconds that a file system's clock may stand still."""
_PERSON = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")


def state_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where keys and remembered checkpoints lie: outside every working directory."""
    if chosen := environment.get("PARTY_STATE_DIR"):
        return Path(chosen).expanduser().absolute()
    base = environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base).absolute() / "agent-party"


class Pinned(msgspec.Struct, frozen=True):
    """What the configuration remembers of a log, so that the log itself is never asked who it is. Hex.

    ``moved``: where it went from this address; whatever lies here now is not the log any more.
    """

    root: str
    slices: int
    nonce: str
    journal: str
    moved: str = ""

    def identity(self) -> Identity:
        """The log's identity."""
        return identity(bytes.fromhex(self.root), self.slices, bytes.fromhex(self.nonce))


def private_folder(folder: Path) -> Path:
    """Make a folder that only its owner may enter; `KeyringPermissionsError` if others may."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = folder.stat().st_mode & 0o777
    except OSError as error:
        raise KeyringError(f"the keyring folder {folder} cannot be used: {error.strerror}") from error
    if mode & 0o077:
        raise KeyringPermissionsError(f"others may read the keys in {folder} (mode {mode:o}): chmod 700 {folder}")
    return folder


def _write_once(path: Path, data: bytes) -> None:
    """Create a private file durably; whoever comes second leaves the first one's."""
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(scratch, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise KeyringError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        scratch.unlink(missing_ok=True)


def _write_over(path: Path, data: bytes) -> None:
    """Write a private file durably in place of what is there: at every moment it is the old one or the new one."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write_once(fresh, data)
        fresh.replace(path)
    except OSError as error:
        raise KeyringError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def read_seed(path: Path) -> bytes:
    """A 32-byte seed from a file that only its owner may read."""
    try:
        mode = path.stat().st_mode & 0o777
        if mode & 0o077:
            raise KeyringPermissionsError(f"others may read the key {path} (mode {mode:o}): chmod 600 {path}")
        seed = path.read_bytes()
    except OSError as error:
        raise KeyringError(f"the key {path} cannot be read ({error.strerror}): restore it from its backup") from error
    if len(seed) != 32:
        raise WrongKeyError(f"{path} holds {len(seed)} bytes where a key has 32: restore it from its backup")
    return seed


def _changed(folder: Path) -> int:
    """When something was last made or removed in a folder; 0 if it is not there."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


class Keyring:
    """The keys of one user, by log and by person. Making a key is idempotent, also between processes."""

    def __init__(self, folder: Path | None = None, random: Callable[[int], bytes] = os.urandom) -> None:
        self.folder = private_folder(folder or state_folder())
        self._random = random
        self._issuing: dict[bytes, tuple[int, SigningKey]] = {}

    def pinned(self, journal: str) -> Pinned | None:
        """The log remembered for this journal address, or None if none was founded there by this user."""
        path = self._journal(journal)
        try:
            if not path.exists():
                return None
            pinned = msgspec.json.decode(path.read_bytes(), type=Pinned)
            pinned.identity()
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise KeyringError(f"{path} cannot be read ({error}): restore it, or remove it to start anew") from error
        return pinned

    def pin(self, pinned: Pinned) -> None:
        """Remember a log for its journal address."""
        private_folder(self._journal(pinned.journal).parent)
        _write_once(self._journal(pinned.journal), msgspec.json.encode(pinned))

    def move_pin(self, log: Identity, journal: str, target: str) -> None:
        """Remember that a log lies at ``target`` now, and that it went there from ``journal``. May be done again."""
        names = (log.root.hex(), log.slices, log.nonce.hex())
        for pinned in (Pinned(*names, target), Pinned(*names, journal, moved=target)):
            private_folder(self._journal(pinned.journal).parent)
            _write_over(self._journal(pinned.journal), msgspec.json.encode(pinned))

    def forget(self, journal: str) -> bool:
        """Forget which log belongs to this address; its keys stay. True if one was remembered."""
        path = self._journal(journal)
        known = path.exists()
        path.unlink(missing_ok=True)
        return known

    def found(self, slices: int) -> tuple[Identity, SigningKey]:
        """A new root key and the identity of the log it founds."""
        seed = self._random(32)
        log = identity(SigningKey.from_seed(seed).public, slices, self._random(32))
        _write_once(self.log_folder(log) / "root.key", seed)
        return log, SigningKey.from_seed(seed)

    def has(self, log: Identity) -> bool:
        """Whether this user has the root key of a log, or had."""
        return (self.folder / "logs" / log.log_id.hex() / "root.key").exists()

    def root(self, log: Identity) -> SigningKey:
        """The root key of a log; `WrongKeyError` if the folder holds another."""
        path = self.log_folder(log) / "root.key"
        key = SigningKey.from_seed(read_seed(path))
        if key.public != log.root:
            raise WrongKeyError(f"{path} is not the root key of log {log.log_id.hex()[:16]}: restore the right one")
        return key

    def issuing(self, log: Identity) -> SigningKey:
        """The issuing key in use: the newest. The folder is read again when anything was made in it."""
        folder = self.folder / "logs" / log.log_id.hex()
        known, changed = self._issuing.get(log.log_id), _changed(folder)
        if known and known[0] == changed:
            return known[1]
        now = time.time_ns()
        key = self._signing(log, f"issuing-{self._newest_issuing(log)}")
        if changed and now - changed > _TICK:  # else something else could still be made at the same time by its clock
            self._issuing[log.log_id] = (changed, key)
        return key

    def rotate_issuing(self, log: Identity) -> SigningKey:
        """Make the next issuing key and use it from now on; the old one stays certified until it is revoked."""
        return self._signing(log, f"issuing-{self._newest_issuing(log) + 1}")

    def checkpoint_key(self, log: Identity) -> SigningKey:
        """The key that signs checkpoints, and nothing else."""
        return self._signing(log, "checkpoint")

    def secret(self, log: Identity, name: str) -> bytes:
        """A 32-byte symmetric secret of this log: ``wrapping`` (of data keys), ``index`` (seals of caches)."""
        return self._seed(self.log_folder(log) / f"{name}.key")

    def person(self, person: str) -> SigningKey:
        """A person's signing key, made at first use. ``person`` is an id: lower-case letters, digits and dashes."""
        if not _PERSON.fullmatch(person):
            raise KeyringError(f"{person!r} is no person's id: use lower-case letters, digits and dashes")
        return SigningKey.from_seed(self._seed(private_folder(self.folder / "people") / f"{person}.key"))

    def known_person(self, person: str) -> SigningKey:
        """The key of a person who has one here; `KeyringError` if nobody does."""
        if not _PERSON.fullmatch(person) or not (self.folder / "people" / f"{person}.key").exists():
            raise KeyringError(f"no key of {person!r} is in {self.folder / 'people'}")
        return self.person(person)

    def default_person(self, proposed: str) -> str:
        """This user's own id as a person: random, made once, a name for nobody but this keyring."""
        path = private_folder(self.folder / "people") / "default"
        if not path.exists():
            _write_once(path, proposed.encode())
        return path.read_text()

    def log_folder(self, log: Identity) -> Path:
        """Where this log's keys and remembered checkpoint lie."""
        return private_folder(private_folder(self.folder / "logs") / log.log_id.hex())

    def _journal(self, journal: str) -> Path:
        return self.folder / "journals" / f"{hashlib.sha256(journal.encode()).hexdigest()[:32]}.json"

    def _newest_issuing(self, log: Identity) -> int:
        numbers = [path.stem.removeprefix("issuing-") for path in self.log_folder(log).glob("issuing-*.key")]
        return max((int(number) for number in numbers if number.isdecimal()), default=1)

    def _signing(self, log: Identity, name: str) -> SigningKey:
        return SigningKey.from_seed(self._seed(self.log_folder(log) / f"{name}.key"))

    def _seed(self, path: Path) -> bytes:
        if not path.exists():
            _write_once(path, self._random(32))
        return read_seed(path)
