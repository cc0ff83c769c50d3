"""``parse_url``: the address of a server, from a URL whose secrets stay hidden."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

import attrs

from rxdispatch.errors import ConfigError
from rxdispatch.store.secret import Secret

__all__ = ["Target", "Tls", "parse_url"]

Scheme = Literal["redis", "rediss", "unix", "memory"]
CertReqs = Literal["none", "optional", "required"]

_SCHEMES: Final[tuple[Scheme, ...]] = ("redis", "rediss", "unix", "memory")
_NOT_YET: Final = ("redis+sentinel", "redis+cluster")
_KNOWN: Final = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
_TLS_OPTIONS: Final = (
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_cert_reqs",
    "ssl_check_hostname",
)
_CERT_REQS: Final[Mapping[str, CertReqs]] = {
    "none": "none",
    "optional": "optional",
    "required": "required",
}
_YES: Final = ("1", "true", "yes")
_NO: Final = ("0", "false", "no")


@attrs.frozen(slots=True, kw_only=True)
class Tls:
    """
    The TLS settings: paths of PEM files, and the checks of the server's certificate.

    Args:
        ca_certs: The certificate authorities to trust; None for those of the system.
        certfile: This client's certificate, if the server wants one.
        keyfile: Its key, if that is in another file.
        cert_reqs: ``required``, ``optional`` or ``none``.
        check_hostname: Whether the certificate must name the host.
    """

    ca_certs: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    cert_reqs: CertReqs = "required"
    check_hostname: bool = True


@attrs.frozen(slots=True, kw_only=True)
class Target:
    """
    The address of a server and the login; made by :func:`parse_url`.

    Its repr and :attr:`safe` hold no password.

    Args:
        scheme: ``redis``, ``rediss``, ``unix`` or ``memory``.
        host: The host of a TCP server.
        port: The port of a TCP server.
        path: The path of a unix socket.
        db: The number of the database.
        user: The ACL user; None for the default user.
        password: The password; None if there is none.
        tls: The TLS settings of ``rediss``.
    """

    scheme: Scheme
    host: str = ""
    port: int = 6379
    path: str = ""
    db: int = 0
    user: str | None = None
    password: Secret | None = None
    tls: Tls | None = None

    @property
    def safe(self) -> str:
        """The URL without its password, for logs and messages."""
        login = "" if self.password is None else f"{quote(self.user or '', safe='')}:***@"
        if self.scheme == "memory":
            return "memory://"
        if self.scheme == "unix":
            tail = f"?db={self.db}" if self.db else ""
            return f"unix://{login}{quote(self.path)}{tail}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{login}{host}:{self.port}/{self.db}"

    def __str__(self) -> str:
        return self.safe


def parse_url(url: str) -> Target:
    """
    Read the URL of a server.

    The URL has one of these forms, with user, password and path percent-encoded:

    - ``redis://[user:password@]host[:port][/db]``;
    - the same with ``rediss://`` for TLS, and the options ``ssl_ca_certs``, ``ssl_certfile``,
      ``ssl_keyfile``, ``ssl_cert_reqs`` and ``ssl_check_hostname``;
    - ``unix://[user:password@]/path[?db=n]``;
    - ``memory://``.

    Raises:
        ConfigError: If the URL breaks a rule. The message repeats no part of the URL: with a
            misplaced ``@``, ``/`` or ``#``, any part may belong to the password.

    Example:
        >>> parse_url("redis://worker:pa%40ss@cache.local/2").safe
        'redis://worker:***@cache.local:6379/2'
        >>> parse_url("redis://worker:pa%40ss@cache.local/2").password.reveal()
        'pa@ss'
    """
    if not isinstance(url, str):
        raise ConfigError("url must be a str")
    try:
        parts = urlsplit(url)
    except ValueError:
        # The message of that error may quote the URL.
        raise ConfigError("url must be well formed, such as redis://host:6379/0") from None
    if parts.scheme not in _SCHEMES and parts.scheme not in _NOT_YET:
        raise ConfigError(f"url must begin with one of {_KNOWN}")
    if "@" in parts.path or "@" in parts.query or parts.fragment or "#" in url:
        raise ConfigError(
            "user, password and path of the url must be percent-encoded"
            " (@ is %40, / is %2F, # is %23, ? is %3F)"
        )
    if parts.scheme in _NOT_YET:
        raise _refusal(parts)
    if parts.scheme == "memory":
        if parts.netloc or parts.path or parts.query:
            raise ConfigError("memory:// must have nothing after it")
        return Target(scheme="memory")
    if parts.scheme == "unix":
        return _unix(parts)
    return _tcp(parts, "rediss" if parts.scheme == "rediss" else "redis")


def _tcp(parts: SplitResult, scheme: Scheme) -> Target:
    user, password, place = _login(parts.netloc)
    host, port = _place(place)
    options = _options(parts.query, ("db", *_TLS_OPTIONS) if scheme == "rediss" else ("db",))
    path = parts.path.removeprefix("/")
    if path and "db" in options:
        raise ConfigError("db must be given once, as /db or as ?db=")
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        db=_db(path or options.get("db", "0")),
        user=user,
        password=password,
        tls=_tls(options) if scheme == "rediss" else None,
    )


def _unix(parts: SplitResult) -> Target:
    user, password, place = _login(parts.netloc)
    path = unquote(parts.path)
    if place or not path.startswith("/") or "\0" in path:
        raise ConfigError("a unix:// url must hold an absolute path: unix:///run/redis.sock")
    options = _options(parts.query, ("db",))
    db = _db(options.get("db", "0"))
    return Target(scheme="unix", path=path, db=db, user=user, password=password)


def _refusal(parts: SplitResult) -> ConfigError:
    """Check the hosts of a deployment that is not supported yet; return the error to raise."""
    _, _, places = _login(parts.netloc)
    for place in places.split(","):
        _place(place)
    return ConfigError(f"{parts.scheme}:// is not yet supported; give the url of one server")


def _login(netloc: str) -> tuple[str | None, Secret | None, str]:
    """Split ``user:password@place`` and decode user and password."""
    login, at, place = netloc.rpartition("@")
    if not at:
        return None, None, place
    if "@" in login:
        raise ConfigError("user and password of the url must be percent-encoded (@ is %40)")
    user, colon, password = login.partition(":")
    if not colon:
        # A user name would be shown, but a login without a colon is often a password.
        raise ConfigError("the url must hold user:password@ or :password@, with the colon")
    if not user and not password:
        return None, None, place
    try:
        decoded = unquote(user, errors="strict"), unquote(password, errors="strict")
    except UnicodeDecodeError:
        raise ConfigError("user and password of the url must be UTF-8") from None
    return decoded[0] or None, Secret(decoded[1]), place


def _place(place: str) -> tuple[str, int]:
    """Split ``host:port``; the host may be an IPv6 address in brackets."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:,]*))(?::([0-9]*))?", place)
    if found is None:
        raise ConfigError("the url must hold host:port with a port from 1 to 65535")
    host = unquote(found[1] or found[2] or "localhost")
    port = int(found[3]) if found[3] and len(found[3]) <= 5 else 0 if found[3] else 6379
    if not 1 <= port <= 65535:
        raise ConfigError("the port of the url must be from 1 to 65535")
    return host, port


def _db(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ConfigError("the db of the url must be a number >= 0")
    return int(text)


def _options(query: str, known: tuple[str, ...]) -> dict[str, str]:
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise ConfigError(f"the options of the url must be among {', '.join(known)}")
        if name in options:
            raise ConfigError(f"the option {name} of the url must be given once")
        options[name] = value
    return options


def _tls(options: Mapping[str, str]) -> Tls:
    reqs = _CERT_REQS.get(options.get("ssl_cert_reqs", "required").lower())
    if reqs is None:
        raise ConfigError(f"ssl_cert_reqs must be one of {', '.join(_CERT_REQS)}")
    check = options.get("ssl_check_hostname", "true").lower()
    if check not in _YES and check not in _NO:
        raise ConfigError("ssl_check_hostname must be true or false")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ConfigError("ssl_keyfile must come with ssl_certfile")
    return Tls(
        ca_certs=options.get("ssl_ca_certs"),
        certfile=options.get("ssl_certfile"),
        keyfile=options.get("ssl_keyfile"),
        cert_reqs=reqs,
        check_hostname=check in _YES and reqs != "none",
    )
