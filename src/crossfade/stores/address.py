"""Addresses of collections::

    lancedb:///srv/vectors?id=id#photos           a folder, and a table in it
    qdrant://host:6333/photos                     qdrant+https:// for a server behind TLS; qdrant:///folder/photos, local
    postgresql://user@host:5432/shop?table=photos&id=id
    milvus://host:19530/photos                    milvus:///folder/file.db#photos, embedded
    faiss:///srv/photos.index?ids=photos.ids.txt

What lies in files may be named by a relative path, without the slashes: ``lancedb:vectors#photos``. It is kept as the whole
path, so that an upgrade finds it from any folder.

No secret stands in an address: it is named in logs, errors, reports and state files. Passwords and keys come from the
environment, under the names that the stores' own clients know: PGPASSWORD, QDRANT_API_KEY, MILVUS_TOKEN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from crossfade.errors import ConfigError

__all__ = ["Address", "parse_address"]


@dataclass(frozen=True, slots=True)
class Address:
    """An address, taken apart.

    Attributes:
        text: as it was given; with the whole path where that was relative.
        scheme: which store.
        user: empty where none is named.
        host: empty for what lies in files.
        port: None where none is named.
        path: of the address, unquoted, with its leading slash.
        fragment: what stands behind the #.
        options: what stands behind the question mark.
    """

    text: str
    scheme: str
    user: str
    host: str
    port: int | None
    path: str
    fragment: str
    options: Mapping[str, str]

    def require_options(self, *known: str) -> None:
        """Refuse options that the store does not know; their values are not repeated.

        Raises:
            ConfigError: names them.
        """
        unknown = sorted(set(self.options) - set(known))
        if unknown:
            raise ConfigError(
                f"An address of {self.scheme} has the options {', '.join(sorted(known))}; found {', '.join(unknown)}. Keys "
                "and passwords stand in the environment (docs/stores.md)."
            )

    def file(self) -> Path:
        """The path on this machine.

        Raises:
            ConfigError: there is none, or a host is named.
        """
        if self.host or self.path in ("", "/"):
            raise ConfigError(
                f"An address of {self.scheme} must name a path on this machine, as {self.scheme}:///path."
            )
        return Path(self.path)


def parse_address(text: str) -> Address:
    """An address, taken apart.

    Raises:
        ConfigError: it has no scheme, a port that is no number, an option twice, or a password.
    """
    try:
        parts = urlsplit(text)
        port, password = parts.port, parts.password
        given = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigError(
            "The address of a store must be a URI such as lancedb:///folder#table; this one cannot be read."
        ) from None
    if password is not None:
        raise ConfigError(
            "An address must hold no password, since it is named in logs and state files; this one does. Take it out, and set "
            "PGPASSWORD, QDRANT_API_KEY or MILVUS_TOKEN in the environment."
        )
    if not parts.scheme or not (parts.netloc or parts.path):
        raise ConfigError(
            "The address of a store must be a URI such as lancedb:///folder#table; this one has no scheme, or names nothing."
        )
    scheme = parts.scheme
    if not parts.netloc and not parts.path.startswith("/"):
        whole = quote(str(Path(unquote(parts.path)).expanduser().absolute()))
        parts = parts._replace(path=whole)
        text = f"{scheme}://{urlunsplit(parts._replace(scheme=''))}"
    names = [name for name, _ in given]
    if len(set(names)) < len(names):
        raise ConfigError(f"Each option of an address is given once; found {', '.join(names)}.")
    return Address(
        text,
        scheme,
        unquote(parts.username or ""),
        parts.hostname or "",
        port,
        unquote(parts.path),
        unquote(parts.fragment),
        dict(given),
    )
