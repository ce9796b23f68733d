"""The programs of the services: pinned, fetched by the registries' ordinary clients, and checked before they are run.

Jars are fetched by Maven and held to the SHA-256 of each (`jars/*.sha256`, which ``sha256sum -c`` reads as well). MinIO
is built by Go from a module whose sum is pinned; the module's own go.sum pins everything else. Redis is Debian's, which
apt checks by signature, or whichever is on the PATH.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from .cache import Say, locked, made_once
from .errors import ArtifactError, FetchError, MissingProgramError

PATIENCE = 1_800.0
"""Seconds that fetching or building one thing may take."""
_WORD = 10.0
"""Seconds between two words of progress."""
_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
_PINS = Path(__file__).parent / "jars"


class Jars(NamedTuple):
    """A Java program: ``parts`` are ``group:artifact:version``; what they need comes with them."""

    name: str
    version: str
    parts: tuple[str, ...]

    @property
    def pins(self) -> Path:
        """The file of the SHA-256 of each jar."""
        return _PINS / f"{self.name}.sha256"


class Module(NamedTuple):
    """A Go program: the module, its version, and its sum as Go writes it."""

    name: str
    path: str
    version: str
    sum: str
    flags: str


KAFKA = Jars("kafka", "4.1.2", ("org.apache.kafka:kafka_2.13:4.1.2", "org.slf4j:slf4j-simple:1.7.36"))
NEO4J = Jars("neo4j", "5.26.30", ("org.neo4j.test:neo4j-harness:5.26.30",))
_MINIO = "github.com/minio/minio"
MINIO = Module(
    "minio",
    _MINIO,
    "v0.0.0-20260212201848-7aac2a2c5b7c",
    "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA=",
    f"-s -w -X {_MINIO}/cmd.Version=2026-02-12T20:18:48Z -X {_MINIO}/cmd.ReleaseTag=DEVELOPMENT.2026-02-12T20-18-48Z "
    f"-X {_MINIO}/cmd.CommitID=7aac2a2c5b7c -X {_MINIO}/cmd.ShortCommitID=7aac2a2c5b7c",
)


def jars(program: Jars, say: Say) -> Path:
    """The folder of a Java program's jars, fetched if it is not in the cache.

    Every jar is hashed at each call, so that what is started is what was pinned; `ArtifactError` if it is not.
    """
    pinned = program.pins.read_bytes()
    name = f"{program.name}-{program.version}-{hashlib.sha256(pinned).hexdigest()[:8]}"

    def make(scratch: Path) -> None:
        copy_jars(program, scratch, say)
        check(scratch, program.pins)

    folder = made_once(name, make, say)
    check(folder, program.pins)
    return folder


def copy_jars(program: Jars, folder: Path, say: Say) -> None:
    """Have Maven bring the jars of a program into the folder."""
    maven = find("mvn", f"fetching {program.name}", "install Maven (Debian: apt-get install maven)")
    parts = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *part.split(":")
        )
        for part in program.parts
    )
    with tempfile.TemporaryDirectory(prefix="party-maven-") as scratch:
        pom = Path(scratch) / "pom.xml"
        pom.write_text(
            '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>local</groupId>'
            f"<artifactId>{program.name}</artifactId><version>1</version><dependencies>{parts}</dependencies></project>"
        )
        command = [maven, "-B", "-q", "-C", "-f", str(pom), _COPY, "-DincludeScope=runtime"]
        say(f"{program.name}: fetching {program.version} with mvn")
        call([*command, f"-DoutputDirectory={folder}"], {}, say)


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a folder, in hex, by its name."""
    found = {}
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def check(folder: Path, pins: Path) -> None:
    """`ArtifactError` unless the folder holds exactly the files that are pinned."""
    split = (line.partition("  ") for line in pins.read_text().splitlines())
    pinned = {name: digest for digest, _, name in split}
    found = hashes(folder)
    wrong = [name for name in sorted(pinned.keys() | found.keys()) if pinned.get(name) != found.get(name)]
    if wrong:
        name = wrong[0]
        what = "is missing" if name not in found else "is not pinned" if name not in pinned else "has another SHA-256"
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise ArtifactError(f"{folder / name} {what}{more}: nothing of it is run; delete {folder} and fetch it again")


def minio(say: Say) -> Path:
    """MinIO's program, built if it is not in the cache: some minutes, once.

    `ArtifactError` if the module's sum is not the pinned one, or the program is not as it was built.
    """
    folder = made_once(f"minio-{MINIO.version}", lambda scratch: _build(MINIO, scratch, say), say)
    check(folder / "bin", folder / "minio.sha256")
    return folder / "bin" / MINIO.name


def _build(module: Module, scratch: Path, say: Say) -> None:
    go = find("go", f"building {module.name}", "install Go 1.24 or newer (Debian: apt-get install golang)")
    kept = {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOTELEMETRY": "off", "GOWORK": "off"}
    say(f"{module.name}: fetching {module.version} with go")
    told = json.loads(call([go, "mod", "download", "-json", f"{module.path}@{module.version}"], kept, say))
    if told.get("Sum") != module.sum:
        raise ArtifactError(
            f"{module.path} {module.version} has the sum {told.get('Sum')}, pinned is {module.sum}: it is not built"
        )
    say(f"{module.name}: building it; 2 to 10 minutes, once")
    binary = scratch / "bin" / module.name
    built = [go, "build", "-mod=readonly", "-buildvcs=false", f"-ldflags={module.flags}", "-o", str(binary), "."]
    call(built, kept, say, Path(told["Dir"]))
    written = "".join(f"{digest}  {name}\n" for name, digest in hashes(binary.parent).items())
    (scratch / f"{module.name}.sha256").write_text(written)


def redis(say: Say) -> Path:
    """Redis's server: the one on the PATH, else Debian's, installed where that may be done."""
    if not shutil.which("redis-server"):
        _install_redis(say)
    advice = "install Redis 7 or newer (Debian: apt-get install redis-server)"
    return Path(find("redis-server", "the service redis", advice))


def _install_redis(say: Say) -> None:
    apt = shutil.which("apt-get")
    if not apt or os.geteuid() != 0:
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}  # no server of the system's own is to be started
    with locked(Path(tempfile.gettempdir()) / "party-apt.lock", PATIENCE, lambda: say("redis: another is at it")):
        if shutil.which("redis-server"):
            return
        say("redis: installing Debian's with apt-get")
        call([apt, "update"], quiet, say)
        call([apt, "install", "--yes", "--no-install-recommends", "redis-server"], quiet, say)


def java() -> str:
    """The Java of this machine, 17 or newer."""
    home = os.environ.get("JAVA_HOME")
    own = Path(home) / "bin" / "java" if home else None
    advice = "install a Java runtime, 17 or newer (Debian: apt-get install openjdk-17-jre-headless)"
    program = str(own) if own and own.is_file() else find("java", "Kafka and Neo4j", advice)
    said = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60, check=False).stderr
    version = next((part for part in said.split('"')[1:2]), "")
    if not version.split(".")[0].isdecimal() or int(version.split(".")[0]) < 17:
        raise MissingProgramError(
            "java 17", "Kafka and Neo4j", f"{program} is {version or 'of no known version'}; {advice}"
        )
    return program


def find(program: str, wanted_by: str, advice: str) -> str:
    """The path of a program; `MissingProgramError` with the advice where there is none."""
    found = shutil.which(program)
    if not found:
        raise MissingProgramError(program, wanted_by, advice)
    return found


def call(
    command: Sequence[str],
    environment: Mapping[str, str] = MappingProxyType({}),
    say: Say = lambda line: None,
    folder: Path | None = None,
) -> str:
    """Run a program to its end, with a word of progress now and then; what it wrote to standard output.

    `FetchError` with the end of what it said if it fails.
    """
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        with subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, stdout=out, stderr=err
        ) as running:
            for seconds in _waiting(running):
                say(f"{Path(command[0]).name}: still at it, {seconds:.0f} s")
        for file in (out, err):
            file.seek(0)
        said = out.read()
        if running.returncode:
            last = " ".join((err.read() + said).split())[-400:]
            raise FetchError(f"{' '.join(command[:3])} failed ({running.returncode}): {last}")
    return said


def _waiting(running: subprocess.Popen[bytes]) -> Iterator[float]:
    began = time.monotonic()
    while True:
        try:
            running.wait(_WORD)
            return
        except subprocess.TimeoutExpired:
            yield time.monotonic() - began
        if time.monotonic() - began > PATIENCE:
            running.kill()
