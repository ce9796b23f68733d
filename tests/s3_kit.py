"""What tests of blobs on S3 share: buckets of their own, and a way around the backend."""

import io
import secrets

from minio import Minio

from agent_party.eventstore.backends.blob_s3 import S3Blobs


def new_bucket() -> str:
    """A name that no other test has."""
    return f"test-{secrets.token_hex(8)}"


def client(blobs: S3Blobs) -> Minio:
    """The server, as somebody else reaches it."""
    at = blobs.address
    return Minio(at.host, at.key, at.secret, secure=at.secure, region=at.region)


def overwrite(blobs: S3Blobs, name: bytes, content: bytes) -> None:
    """Put other bytes under a blob's name."""
    key = f"{blobs.address.prefix}blobs/{name.hex()}"
    client(blobs).put_object(blobs.address.bucket, key, io.BytesIO(content), len(content))
