"""From what an S3 server, or the way to it, answers to our errors: each says what to do."""

import contextlib
from collections.abc import Iterator

from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, SSLError

from ..errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError

MISSING = frozenset({"NoSuchKey", "NoSuchObject", "NotFound", "ResourceNotFound"})
EXISTS = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
_WRONG_KEY = "the server does not know this access key: check the URL, or AWS_ACCESS_KEY_ID"
_WRONG_SECRET = (
    "the secret key is not the access key's: check the URL (percent-encode what is not a letter or digit), or "
    "AWS_SECRET_ACCESS_KEY"
)
_POLICY = (
    "this access key may not do that: its policy must allow s3:ListBucket, s3:GetObject, s3:PutObject and, for "
    "sweeping, s3:DeleteObject on the bucket"
)
_CODES: dict[str, tuple[type[StoreError], str]] = {
    "NoSuchBucket": (StoreError, "there is no such bucket: create it, or correct its name"),
    "InvalidBucketName": (StoreError, "a bucket cannot have this name: 3 to 63 lower-case letters, digits and dashes"),
    "AllAccessDisabled": (StoreReadOnlyError, "the bucket is closed to everyone: ask its owner"),
    "AccessDenied": (
        StoreReadOnlyError,
        _POLICY,
    ),
    "InvalidAccessKeyId": (StoreReadOnlyError, _WRONG_KEY),
    "SignatureDoesNotMatch": (
        StoreReadOnlyError,
        _WRONG_SECRET,
    ),
    "ExpiredToken": (StoreReadOnlyError, "the session token has expired: get a new one"),
    "InvalidToken": (StoreReadOnlyError, "the session token is not valid: check AWS_SESSION_TOKEN"),
    "AuthorizationHeaderMalformed": (StoreReadOnlyError, "the bucket is in another region: add region= to the URL"),
    "PermanentRedirect": (StoreError, "the bucket is in another region: add region= to the URL"),
    "RequestTimeTooSkewed": (
        StoreReadOnlyError,
        "this machine's clock and the server's are more than 15 minutes apart: set the clock (for example by NTP)",
    ),
    "QuotaExceeded": (StoreFullError, "the bucket's quota is used up: raise it, or sweep (`party blobs gc`)"),
    "XMinioStorageFull": (StoreFullError, "the server's disks are full: free some space and go on"),
    "SlowDown": (StoreBusyError, "the server asks for patience: try again"),
    "ServiceUnavailable": (StoreBusyError, "the server is not ready: try again"),
    "XMinioServerNotInitialized": (StoreBusyError, "the server is still starting: try again"),
    "InternalError": (StoreBusyError, "the server failed: try again"),
    "RequestTimeout": (StoreBusyError, "the server got the request too slowly: try again"),
}


class Gone(Exception):
    """The object is not there; never leaves the backend."""


class AlreadyThere(Exception):
    """A conditional put found an object; never leaves the backend."""


@contextlib.contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise our errors for the driver's. ``where``: the bucket and its server, as a person knows them."""
    try:
        yield
    except S3Error as error:
        raise _answered(error, where) from error
    except InvalidResponseError as error:
        said = "what answers there is no S3 server: check endpoint= in the URL"
        raise StoreError(f"{where}: {said} ({_short(error)})") from error
    except ServerError as error:
        kind = StoreBusyError if error.status_code >= 500 else StoreError
        raise kind(f"{where}: the server answered {error.status_code}: try again, or look at its log") from error
    except (HTTPError, OSError) as error:
        raise _not_reached(error, where) from error
    except (MinioException, ValueError) as error:
        raise StoreError(f"{where}: {_short(error)}") from error


def _answered(error: S3Error, where: str) -> Exception:
    code = error.code or ""
    if code in MISSING:
        return Gone()
    if code in EXISTS:
        return AlreadyThere()
    kind, advice = _CODES.get(code, (StoreError, error.message or "the server refused"))
    return kind(f"{where}: {advice} ({code})")


def _not_reached(error: Exception, where: str) -> StoreError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, SSLError) or isinstance(error, SSLError):
        return StoreError(f"{where}: no secure connection: check https in endpoint=, or SSL_CERT_FILE ({reason})")
    return StoreBusyError(f"{where}: the server cannot be reached: start it, or correct endpoint= ({_short(reason)})")


def _short(error: object) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
