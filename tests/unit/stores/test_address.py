"""Addresses: what they say, what they must not hold, and what a wrong one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossfade.errors import ConfigError
from crossfade.stores import STORES, open_store, parse_address


def test_an_address_is_taken_apart() -> None:
    found = parse_address("postgresql://me%40x@db.example:5433/shop?table=a.b&id=item%20id#rest")
    assert (found.scheme, found.user, found.host, found.port) == ("postgresql", "me@x", "db.example", 5433)
    assert (found.path, found.fragment, found.options) == ("/shop", "rest", {"table": "a.b", "id": "item id"})
    assert parse_address("lancedb:///srv/my%20vectors#photos").file() == Path("/srv/my vectors")


def test_a_relative_path_is_made_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = parse_address("lancedb:some folder/x?id=key#photos")
    assert found.file() == tmp_path / "some folder/x"
    assert (found.fragment, found.options) == ("photos", {"id": "key"})
    assert parse_address(found.text) == found
    monkeypatch.chdir("/")
    assert parse_address(found.text).file() == tmp_path / "some folder/x"


def test_a_password_is_refused_and_not_repeated() -> None:
    for text in ("postgresql://me:s3cret@host/db?table=t", "qdrant://:s3cret@host/x"):
        with pytest.raises(ConfigError, match="must hold no password") as raised:
            parse_address(text)
        assert "s3cret" not in str(raised.value)
    with pytest.raises(ConfigError, match="found api_key") as raised:
        parse_address("qdrant://host/x?api_key=s3cret").require_options("id")
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("photos", "must be a URI"),
        ("lancedb:", "must be a URI"),
        ("qdrant://host:port/x", "cannot be read"),
        ("postgresql://h/d?table", "cannot be read"),
        ("postgresql://h/d?table=a&table=b", "given once"),
        ("redis://host/x", "A store is one of lancedb"),
    ],
)
def test_what_is_no_address_is_said_so(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(text)


def test_every_store_has_a_module_that_opens_it() -> None:
    from importlib import import_module

    for module in set(STORES.values()):
        assert callable(import_module(module).connect)
