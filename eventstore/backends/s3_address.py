"""Where blobs lie on S3: ``s3://[key:secret@]bucket[/prefix]?endpoint=http://host:port&region=…&create=no``.

What the URL leaves out comes from the usual AWS variables; credentials also from ``~/.aws`` and, where the variables of
a container or a web identity are set, from there.
"""

import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from ..errors import StoreError

_FORM = "s3://[key:secret@]bucket[/prefix]?endpoint=http://host:port&region=…"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_KNOWN = {"endpoint", "region", "create"}
_ELSEWHERE = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)


class Address(NamedTuple):
    """``prefix`` ends in a slash or is empty; ``create``: whether a bucket that is not there may be made."""

    host: str
    secure: bool
    bucket: str
    prefix: str
    region: str
    key: str
    secret: str
    create: bool

    def __str__(self) -> str:
        return f"bucket {self.bucket} at {self.host}"

    @property
    def on_this_machine(self) -> bool:
        """Whether what is sent leaves this machine."""
        return urlsplit(f"//{self.host}").hostname in ("127.0.0.1", "::1", "localhost")

    def credentials(self, environment: Mapping[str, str] = os.environ) -> Any:
        """A provider of credentials; `StoreError` where there are none."""
        from minio.credentials.providers import (
            AWSConfigProvider,
            ChainedProvider,
            EnvAWSProvider,
            IamAwsProvider,
            StaticProvider,
        )

        if self.key:
            return StaticProvider(self.key, self.secret)
        chain: list[Any] = []
        if environment.get("AWS_ACCESS_KEY_ID") or environment.get("AWS_ACCESS_KEY"):
            chain.append(EnvAWSProvider())
        chain.append(AWSConfigProvider(profile=environment.get("AWS_PROFILE")))
        if any(environment.get(name) for name in _ELSEWHERE):
            chain.append(IamAwsProvider())
        try:
            (provider := ChainedProvider(chain)).retrieve()
        except Exception as error:  # each provider has errors of its own
            raise StoreError(
                f"{self}: no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write {_FORM}"
            ) from error
        return provider


def parsed(url: str, environment: Mapping[str, str] = os.environ) -> Address:
    """The address; `StoreError` for a URL that is none. No error shows the secret."""
    try:
        parts = urlsplit(url)
        login, _, bucket = parts.netloc.rpartition("@")
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError as error:
        raise StoreError(f"the blobs' URL cannot be read: it must be {_FORM}") from error
    key, colon, secret = (unquote(part) for part in login.partition(":"))
    if parts.scheme != "s3" or not bucket or parts.fragment or (login and not (key and colon and secret)):
        raise StoreError(f"the blobs' URL is not one of a bucket: it must be {_FORM}")
    if not _BUCKET.fullmatch(bucket):
        raise StoreError(
            f"{bucket} cannot name a bucket: it takes 3 to 63 lower-case letters, digits, dots and hyphens"
        )
    if unknown := set(options) - _KNOWN:
        raise StoreError(f"the blobs' URL has {', '.join(sorted(unknown))}; known are {', '.join(sorted(_KNOWN))}")
    if (create := options.get("create", "yes")) not in ("yes", "no"):
        raise StoreError(f"create={create} in the blobs' URL: it is yes or no")
    given = options.get("endpoint") or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL", "")
    region = options.get("region") or environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION", "")
    endpoint = urlsplit(given or "https://s3.amazonaws.com")
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname or endpoint.path.strip("/") or endpoint.query:
        raise StoreError(f"endpoint={given}: it must be http://host:port or https://host[:port], and nothing after it")
    prefix = unquote(parts.path).strip("/")
    return Address(
        host=endpoint.netloc,
        secure=endpoint.scheme == "https",
        bucket=bucket,
        prefix=f"{prefix}/" if prefix else "",
        region=region or ("us-east-1" if given else ""),
        key=key,
        secret=secret,
        create=create == "yes",
    )
