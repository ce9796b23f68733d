"""Where a Kafka log lies, from its URL, and what a connection there needs.

    kafka://host:port[,host:port]/topic
    kafka+ssl://user:password@host:port[,host:port]/topic?ca=/path/ca.pem

Options: ``partitions`` and ``replicas`` (of a topic that is created), ``ca`` (a PEM file, else the system's
authorities), ``cert`` and ``key`` (PEM files, where the brokers ask for a client certificate), ``mechanism``
(``SCRAM-SHA-512``, the default with a user, ``SCRAM-SHA-256`` or ``PLAIN``). A user and a password travel under TLS
only.
"""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote

from ..errors import StoreError

PARTITIONS = 12
_PORT = 9092
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")
_MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
_OPTIONS = {"partitions", "replicas", "ca", "cert", "key", "mechanism"}
_FORM = "kafka://host:port[,host:port]/topic, or kafka+ssl://user:password@host:port/topic?ca=/path/ca.pem"


class KafkaAddress(NamedTuple):
    """``partitions``, ``replicas``: of a topic that is created; 0 means as many as is right."""

    servers: tuple[str, ...]
    topic: str
    tls: bool = False
    user: str = ""
    password: str = ""
    mechanism: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    partitions: int = 0
    replicas: int = 0

    def __repr__(self) -> str:
        return f"<{self.shown}>"

    @property
    def shown(self) -> str:
        """The address without user, password and options: for messages, and for remembering which log lies here."""
        return f"kafka{'+ssl' if self.tls else ''}://{','.join(self.servers)}/{self.topic}"

    def options(self) -> dict[str, Any]:
        """What an aiokafka client is told. `StoreError` for certificates that cannot be read."""
        told: dict[str, Any] = {"bootstrap_servers": list(self.servers)}
        if self.tls:
            told |= {"security_protocol": "SASL_SSL" if self.user else "SSL", "ssl_context": self._context()}
        if self.user:
            told |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return told

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.cert:
                context.load_cert_chain(self.cert, self.key or None)
        except (OSError, ssl.SSLError) as error:
            named = ", ".join(filter(None, (self.ca, self.cert, self.key)))
            raise StoreError(f"{self.shown}: the certificates {named} cannot be used: {error}") from error
        return context


def address(url: str) -> KafkaAddress:
    """The address in a URL; `ValueError` says what is wrong with it, and never repeats a password."""
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    login, _, hosts = place.rpartition("@")
    servers, _, topic = hosts.partition("/")
    if scheme not in ("kafka", "kafka+ssl") or not servers or not topic:
        raise ValueError(f"it must be {_FORM}")
    if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
        raise ValueError(f"{topic!r} is no topic's name: at most 249 letters, digits, dots, dashes and underlines")
    user, _, password = login.partition(":")
    options = _options(query)
    tls = scheme == "kafka+ssl"
    if not tls and (login or options.keys() & {"ca", "cert", "key", "mechanism"}):
        raise ValueError("a user, a password and certificates need TLS: write kafka+ssl:// instead of kafka://")
    if bool(user) != bool(password):
        raise ValueError("a user goes with a password: kafka+ssl://user:password@...")
    mechanism = options.get("mechanism", _MECHANISMS[0] if user else "")
    if mechanism and (mechanism not in _MECHANISMS or not user):
        raise ValueError(f"mechanism {mechanism!r}: it is one of {', '.join(_MECHANISMS)}, with a user and a password")
    return KafkaAddress(
        servers=tuple(_server(server) for server in servers.split(",")),
        topic=topic,
        tls=tls,
        user=unquote(user),
        password=unquote(password),
        mechanism=mechanism,
        **{name: str(Path(options[name]).expanduser().absolute()) for name in ("ca", "cert", "key") if name in options},
        partitions=_number(options, "partitions", 1_000),
        replicas=_number(options, "replicas", 20),
    )


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := options.keys() - _OPTIONS:
        raise ValueError(f"no option is called {', '.join(sorted(unknown))}: known are {', '.join(sorted(_OPTIONS))}")
    return options


def _server(server: str) -> str:
    found = _SERVER.fullmatch(server)
    if not found or not 0 < int((found[2] or f":{_PORT}")[1:]) < 1 << 16:
        raise ValueError(f"{server!r} is no server: write host:port")
    return server if found[2] else f"{server}:{_PORT}"


def _number(options: Mapping[str, str], name: str, most: int) -> int:
    text = options.get(name, "0")
    if not text.isdecimal() or (name in options and not 1 <= int(text) <= most):
        raise ValueError(f"{name} is a number from 1 to {most}, not {text!r}")
    return int(text)
