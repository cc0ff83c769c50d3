"""URLs of servers: parsing, errors, and the parts that no message repeats."""

from __future__ import annotations

import traceback
from typing import Any

import attrs
import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.store.secret import Secret
from rxdispatch.store.url import Target, Tls, parse_url

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"host": "localhost"}),
        ("redis://cache", {"host": "cache"}),
        ("redis://cache:7000/3", {"host": "cache", "port": 7000, "db": 3}),
        ("redis://cache?db=4", {"host": "cache", "db": 4}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("REDIS://cache", {"host": "cache"}),
        ("redis://:pw@cache", {"host": "cache", "password": Secret("pw")}),
        ("redis://bob:pw@cache", {"host": "cache", "user": "bob", "password": Secret("pw")}),
        ("redis://bob:@cache", {"host": "cache", "user": "bob", "password": Secret("")}),
        (
            "redis://b%40b:p%3A%2F%23%25%C3%BC@cache",
            {"host": "cache", "user": "b@b", "password": Secret("p:/#%ü")},
        ),
        ("rediss://cache", {"scheme": "rediss", "host": "cache", "tls": Tls()}),
        ("unix:///run/r.sock?db=2", {"scheme": "unix", "path": "/run/r.sock", "db": 2}),
        (
            "unix://:pw@/run/a%20b.sock",
            {"scheme": "unix", "path": "/run/a b.sock", "password": Secret("pw")},
        ),
        ("memory://", {"scheme": "memory"}),
    ],
)
def test_what_is_read(url: str, expected: dict[str, Any]) -> None:
    """Each part of the URL becomes an attribute."""
    settings: dict[str, Any] = {"scheme": "redis", **expected}
    assert Target(**settings) == parse_url(url)


def test_the_options_of_tls() -> None:
    """All options work together."""
    options = "ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_cert_reqs=optional"
    expected = Tls(
        ca_certs="/ca",
        certfile="/c",
        keyfile="/k",
        cert_reqs="optional",
        check_hostname=False,
    )
    assert expected == parse_url(f"rediss://cache?{options}&ssl_check_hostname=no").tls


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        (f"http://{SECRET}@cache", "url must begin with one of redis://, rediss://, unix://"),
        (f"{SECRET}@cache", "url must begin with"),
        ("", "url must begin with"),
        (f"redis://[{SECRET}", "url must be well formed"),
        (f"redis://:{SECRET}@cache:high", "a port from 1 to 65535"),
        (f"redis://:{SECRET}@cache:0", "the port of the url must be from 1 to 65535"),
        (f"redis://:{SECRET}@cache:65536", "the port of the url must be from 1 to 65535"),
        (f"redis://:{SECRET}@cache:999999999", "the port of the url must be from 1 to 65535"),
        (f"redis://:{SECRET}@cache/x", "the db of the url must be a number >= 0"),
        (f"redis://:{SECRET}@cache/-1", "the db of the url must be a number >= 0"),
        (f"redis://:{SECRET}@cache/1?db=1", "db must be given once"),
        (f"redis://:{SECRET}@cache?db=1&db=2", "the option db of the url must be given once"),
        (f"redis://:{SECRET}@cache?ssl_ca_certs=/x", "the options of the url must be among db"),
        (f"redis://:{SECRET}@cache?timeout=1", "the options of the url must be among db"),
        (f"redis://cache?{SECRET}=1", "the options of the url must be among db"),
        (f"redis://{SECRET}@cache", "the url must hold user:password@ or :password@"),
        (f"redis://:a/{SECRET}@cache", "must be percent-encoded"),
        (f"redis://:a?{SECRET}@cache", "must be percent-encoded"),
        (f"redis://:a#{SECRET}@cache", "must be percent-encoded"),
        (f"redis://:a#{SECRET}", "must be percent-encoded"),
        (f"redis://:a@{SECRET}@cache", "must be percent-encoded"),
        (f"redis://:{SECRET}%FF@cache", "must be UTF-8"),
        (f"rediss://:{SECRET}@cache?ssl_cert_reqs=some", "ssl_cert_reqs must be one of none"),
        (f"rediss://:{SECRET}@cache?ssl_check_hostname=si", "ssl_check_hostname must be true"),
        (f"rediss://:{SECRET}@cache?ssl_keyfile=/k", "ssl_keyfile must come with ssl_certfile"),
        (f"unix://:{SECRET}@run/r.sock", "must hold an absolute path"),
        (f"unix://:{SECRET}@", "must hold an absolute path"),
        (f"memory://{SECRET}", "memory:// must have nothing after it"),
        (
            f"redis+sentinel://:{SECRET}@a:26379,b:26379/main/0",
            "redis+sentinel:// is not yet supported",
        ),
        (f"redis+cluster://:{SECRET}@a:7000,b", "redis+cluster:// is not yet supported"),
        (f"redis+cluster://:{SECRET}@a:7000,b:x", "a port from 1 to 65535"),
    ],
)
def test_what_is_refused(url: str, rule: str) -> None:
    """Each error states its own rule, and no part of the URL."""
    with pytest.raises(ConfigError) as caught:
        parse_url(url)
    text = "".join(traceback.format_exception(caught.value))
    assert rule in str(caught.value)
    # The source lines in the traceback do not contain it either.
    assert SECRET not in text.replace(__file__, "")
    assert SECRET not in repr(vars(caught.value))


def test_a_url_must_be_text() -> None:
    """Bytes are refused."""
    with pytest.raises(ConfigError, match="url must be a str"):
        parse_url(b"redis://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("redis://", "redis://localhost:6379/0"),
        (f"redis://bob:{SECRET}@cache/2", "redis://bob:***@cache:6379/2"),
        (f"redis://:{SECRET}@[::1]", "redis://:***@[::1]:6379/0"),
        (f"unix://b%40b:{SECRET}@/a%20b?db=1", "unix://b%40b:***@/a%20b?db=1"),
        ("memory://", "memory://"),
    ],
)
def test_the_safe_form(url: str, safe: str) -> None:
    """The safe form can be parsed again, and neither it nor the repr has the password."""
    target = parse_url(url)
    assert [safe, safe] == [target.safe, str(target)]
    assert SECRET not in repr(target)
    assert SECRET not in repr(attrs.asdict(target))
    assert attrs.evolve(target, password=None) == attrs.evolve(parse_url(safe), password=None)
