"""Where everything lies: four URLs and a runtime, from arguments, environment (`PARTY_*`) or `party.toml`."""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from ..actors.errors import ConfigurationError
from ..actors.passivation import IDLE
from ..eventstore.backends.kafka_address import KafkaAddress
from ..eventstore.backends.kafka_address import address as parsed_kafka
from ..eventstore.keyring import state_folder

RuntimeName = Literal["auto", "local", "ray"]
FOLDER = ".party"
MOST_SHARD_LOGS = 64
_IN_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
SCHEMES = {
    "journal": ("sqlite", "kafka", "kafka+ssl"),
    "graph": ("ladybug", "bolt", "bolt+s", "bolt+ssc", "neo4j", "neo4j+s", "neo4j+ssc"),
    "views": ("sqlite", "redis", "rediss"),
    "blobs": ("file", "s3"),
}
"""The stores, and the schemes of their URLs; the first is the embedded one, a file or folder."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``name``: the party's name, its namespace on Ray. ``hosts``: pooled hosts on Ray, 0 for one a two cores.
    ``idle``: seconds after which what only waits is taken out of memory. ``shard_logs``: how many clients of Kafka the
    hosts of a party on Ray share; 0: each has one of its own.

    Empty URLs mean the embedded defaults in `folder`. ``home``: where caches lie if the journal is no file.
    ``ray_address``: a cluster's, else Ray's own rules. ``app``: where the command line finds code, as
    ``module:attribute``. ``profile``: ``services``, where the four URLs are to be those of the services that run here.
    """

    journal: str = ""
    graph: str = ""
    views: str = ""
    blobs: str = ""
    runtime: RuntimeName = "auto"
    name: str = "agent-party"
    hosts: int = 0
    idle: float = IDLE
    shard_logs: int = 1
    ray_address: str = ""
    person: str = ""
    state: str = ""
    home: str = ""
    app: str = ""
    profile: str = ""

    @property
    def embedded(self) -> bool:
        """Whether the log is a file of this machine."""
        return self.journal.startswith("sqlite:")

    @property
    def address(self) -> str:
        """The journal without user, password and options: for messages, and for remembering which log lies there."""
        return self.journal if self.embedded else kafka_address(self.journal).shown

    @property
    def log_path(self) -> Path:
        """The SQLite file of the log."""
        return sqlite_path(self.journal, "journal")

    @property
    def folder(self) -> Path:
        """Where caches and the files of live processes lie: beside the log, if it is a file.

        For a log elsewhere a folder of its own in ``home``, so that parties of two logs do not take each other's.
        """
        if self.embedded:
            return self.log_path.parent
        topic, digest = kafka_address(self.journal).topic, hashlib.sha256(self.address.encode()).hexdigest()
        return Path(self.home) / f"{topic}-{digest[:8]}"

    @property
    def views_path(self) -> Path:
        """The SQLite file of the views."""
        return sqlite_path(self.views, "views") if self.views else self.folder / "views.db"

    @property
    def blobs_path(self) -> Path:
        """The folder of the blobs."""
        return _path(self.blobs, "blobs", "file") if self.blobs else self.folder / "blobs"

    @property
    def graph_path(self) -> Path:
        """The folder of the embedded graph."""
        return _path(self.graph, "graph", "ladybug") if self.graph else self.folder / "graph"


def load(given: Mapping[str, Any], environment: Mapping[str, str] = os.environ, folder: Path | None = None) -> Settings:
    """Settings from arguments, then environment, then ``party.toml`` in the folder; relative paths made absolute."""
    folder = folder or Path.cwd()
    merged: dict[str, Any] = _from_file(folder / "party.toml")
    fields = set(Settings.__struct_fields__)
    nearer: dict[str, Any] = {name: value for name in fields if (value := environment.get(f"PARTY_{name.upper()}"))}
    nearer |= {name: value for name, value in given.items() if value not in (None, "")}
    merged |= _of_profile(str(nearer.get("profile") or merged.get("profile") or ""), folder) | nearer
    base = job_folder(environment) or folder
    merged.setdefault("journal", f"sqlite:///{FOLDER}/log.db")
    for name in SCHEMES:
        if merged.get(name):
            merged[name] = _absolute(str(merged[name]), base)
    if merged.get("home") or not str(merged["journal"]).startswith("sqlite:"):
        merged["home"] = str((base / Path(str(merged.get("home") or FOLDER)).expanduser()).absolute())
    merged["state"] = str(
        (folder / Path(str(merged.get("state") or state_folder(environment))).expanduser()).absolute()
    )
    try:
        settings = msgspec.convert(merged, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"a setting cannot be used: {error}; known are {', '.join(sorted(fields))}") from error
    if settings.hosts < 0:
        raise ConfigurationError(f"hosts must be 0 or more, not {settings.hosts}")
    if not 0 <= settings.shard_logs <= MOST_SHARD_LOGS:
        raise ConfigurationError(f"shard_logs must be 0 to {MOST_SHARD_LOGS}, not {settings.shard_logs}")
    if not settings.idle >= 0:
        raise ConfigurationError(f"idle must be seconds, 0 or more, not {settings.idle}")
    for name in SCHEMES:
        _check_url(name, getattr(settings, name))
    return settings


def in_a_job(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this program was started by ``ray job submit``."""
    return _IN_A_JOB in environment


def job_folder(environment: Mapping[str, str] = os.environ) -> Path | None:
    """Inside a Ray job the working directory is thrown away: there, the user's data folder is the base."""
    if not in_a_job(environment):
        return None
    base = environment.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "agent-party"


def chosen_runtime(settings: Settings, environment: Mapping[str, str] = os.environ) -> Literal["local", "ray"]:
    """What ``auto`` comes to: Ray in a Ray job, where Ray is initialised already, or where an address is set."""
    if settings.runtime != "auto":
        return settings.runtime
    import sys

    ray = sys.modules.get("ray")
    wanted = settings.ray_address or environment.get("RAY_ADDRESS") or in_a_job(environment)
    return "ray" if wanted or (ray is not None and ray.is_initialized()) else "local"


def scheme_of(url: str) -> str:
    """The scheme of a store's URL."""
    return url.partition("://")[0]


def services_folder(folder: Path) -> Path:
    """Where the services lie that ``party services`` starts from a folder."""
    return folder / FOLDER / "services"


def _of_profile(profile: str, folder: Path) -> dict[str, str]:
    """What a profile sets: more than ``party.toml`` says, less than what was given or stands in the environment."""
    if not profile:
        return {}
    if profile != "services":
        raise ConfigurationError(f"there is no profile {profile!r}: there is `services`")
    from .services import settings_of

    return settings_of(services_folder(folder))


def _check_url(setting: str, url: str) -> None:
    """`ConfigurationError` for a URL that names no store which this setting may have."""
    file, *services = SCHEMES[setting]
    if not url or scheme_of(url) == file:
        if url:
            _path(url, setting, file)
    elif scheme_of(url) not in services:
        raise ConfigurationError(
            f"{setting} {url!r}: it takes {file}:///relative/path, {file}:////absolute/path, or a service's URL "
            f"({', '.join(f'{one}://' for one in services)})"
        )
    elif setting == "journal":
        kafka_address(url)


def kafka_address(url: str) -> KafkaAddress:
    """The topic of a ``kafka://`` URL; `ConfigurationError` for one that names none. Passwords are not repeated."""
    try:
        return parsed_kafka(url)
    except ValueError as error:
        raise ConfigurationError(f"journal {url.rpartition('@')[2]!r}: {error}") from None


def sqlite_path(url: str, setting: str) -> Path:
    """The file of a ``sqlite:///`` URL; `ConfigurationError` for another."""
    return _path(url, setting, "sqlite")


def _path(url: str, setting: str, scheme: str) -> Path:
    found, _, path = url.partition("://")  # any character may stand in a path, so it is no URL to be parsed
    if found != scheme or not path.startswith("/") or not path.strip("/"):
        raise ConfigurationError(
            f"{setting} {url!r}: it must be {scheme}:///relative/path or {scheme}:////absolute/path"
        )
    return Path("/" + path.lstrip("/"))


def _absolute(url: str, base: Path) -> str:
    """``sqlite:///a/b`` is relative to the base, ``sqlite:////a/b`` is absolute; given back is always the second."""
    scheme, found, path = url.partition(":///")
    if not found or not path or scheme not in {schemes[0] for schemes in SCHEMES.values()}:
        return url
    return f"{scheme}:///{(base / path).absolute()}"


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return dict(tomllib.loads(path.read_text())) if path.is_file() else {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
