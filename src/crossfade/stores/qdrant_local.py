"""Folders of Qdrant's local mode.

A folder admits one client at a time, even within a process: all handles of a process on one folder share one, under one lock.
"""

from __future__ import annotations

import atexit
import threading
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, final

from crossfade.errors import MissingExtra, StoreChanged, StoreError, Unreachable

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

__all__ = ["LocalFolder", "borrow", "client_class"]


@final
class LocalFolder:
    """The client of one local folder in this process, for all that use it.

    Attributes:
        client: of the folder.
        lock: to be held while it is asked: the local mode knows no threads.
    """

    def __init__(self, folder: Path, client: QdrantClient) -> None:
        self.client = client
        self.lock = threading.RLock()
        self.users = 0
        self._folder = folder

    def release(self) -> None:
        """One user less; the last one closes the client and unlocks the folder."""
        with GUARD:
            self.users -= 1
            if not self.users:
                del OPEN[self._folder]
                with self.lock:
                    self.client.close()


OPEN: dict[Path, LocalFolder] = {}
GUARD = threading.Lock()


@atexit.register
def _close_all() -> None:
    """What was not closed is closed while Python can still do so."""
    for left in OPEN.values():
        left.client.close()


def borrow(folder: Path) -> LocalFolder:
    """The client of a local folder, opened if none of this process has it open; to be released once.

    Raises:
        MissingExtra: the client is not installed.
        StoreChanged: there is nothing of Qdrant's in the folder.
        Unreachable: another process has it open.
        StoreError: it cannot be read.
    """
    make = client_class()
    folder = folder.resolve()
    with GUARD:
        found = OPEN.get(folder)
        if found is None:
            if not (folder / "meta.json").is_file():  # the client would make an empty store there
                raise StoreChanged(
                    f"qdrant://{folder} must be a folder that Qdrant's local mode made; there is no meta.json. Correct the "
                    "path: its last part is the collection."
                )
            try:
                found = OPEN[folder] = LocalFolder(folder, make(path=str(folder)))
            except RuntimeError:
                raise Unreachable(
                    f"qdrant://{folder} can be open in one process at a time, and another has it open. Close it there, or "
                    "run a Qdrant server."
                ) from None
            except Exception as error:
                raise StoreError(
                    f"qdrant://{folder} cannot be read by qdrant-client {version('qdrant-client')} "
                    f"({type(error).__name__}). Open it by the version that wrote it."
                ) from None
        found.users += 1
        return found


def client_class() -> type[QdrantClient]:
    """Of the package, which is imported here.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError as error:
        raise MissingExtra("qdrant_client", extra="stores", feature="The store Qdrant") from error
    return QdrantClient
