"""MinIO, for blobs: one folder behind the protocol of S3."""

import json
from pathlib import Path

from . import artifacts
from .cache import Say
from .ports import LOOPBACK
from .server import Command, NotYetError, Place, driver, environment, secret
from .state import Node, State

USER = "party"


class Minio:
    """One server."""

    name, patience, parting = "minio", 60.0, 20.0

    def fetch(self, say: Say) -> Path:
        """Built from its source, once."""
        return artifacts.minio(say)

    def ports(self, state: State) -> tuple[str, ...]:
        """The protocol's; the console is off."""
        return ("s3",)

    def command(self, place: Place, node: Node, program: Path) -> Command:
        """All of its settings stand in the environment."""
        place.data(node).mkdir(exist_ok=True)
        words = [str(program), "server", "--address", f"{LOOPBACK}:{node.ports['s3']}"]
        words += ["--certs-dir", str(place.home(node) / "certs"), str(place.data(node))]
        return Command(words, environment(**settings(), MINIO_ROOT_PASSWORD=secret(place.state, "minio")))

    def answer(self, place: Place, node: Node) -> str:
        """What it tells its administrator."""
        minio = driver("minio", "s3")
        urllib3, credentials = driver("urllib3", "s3"), driver("minio.credentials", "s3")
        retries = urllib3.Retry(0, redirect=0)
        pool = urllib3.PoolManager(timeout=urllib3.Timeout(5), retries=retries)
        login = credentials.StaticProvider(USER, secret(place.state, "minio"))
        address = f"{LOOPBACK}:{node.ports['s3']}"
        try:
            admin = minio.MinioAdmin(endpoint=address, credentials=login, secure=False, http_client=pool)
            said = json.loads(admin.info())
        except (minio.error.MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise NotYetError(str(error)) from error
        finally:
            pool.clear()
        return str(said["servers"][0]["version"])


def settings() -> dict[str, str]:
    """What the server is set to, but for the password."""
    return {
        "MINIO_ROOT_USER": USER,
        "MINIO_BROWSER": "off",
        "MINIO_UPDATE": "off",
        "MINIO_COMPRESSION_ENABLE": "off",
    }
