"""What a run has trained and embedded, in a folder outside the repository: a run that was killed goes on.

Every entry stands under a name and a digest of all that it depends on, so that what changed is made anew.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from crossfade import Adapter, Embeddings
from crossfade.files import atomic_file, atomic_folder

Key = Mapping[str, Any]


def default_folder() -> Path:
    """The user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "crossfade" / "flickr8k_upgrade"


def digest(value: Any) -> str:
    """A short digest of JSON values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def code_of(*modules: ModuleType) -> str:
    """A digest of what modules compute; comments, docstrings and layout do not change it."""
    return digest([_code(module) for module in modules])


@functools.cache  # a file that is edited while this runs must not change what it is taken for
def _code(module: ModuleType) -> str:
    tree = ast.parse(inspect.getsource(module))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [s for s in body if not _is_text(s)] or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


@dataclass(frozen=True)
class Cache:
    """Entries in a folder; each is there whole or not at all.

    Attributes:
        folder: may be deleted at any time.
    """

    folder: Path

    def place(self, name: str, key: Key) -> Path:
        """Where the entry of this name and key is, or will be."""
        readable = re.sub(r"[^\w/=-]+", "-", name)
        return self.folder / f"{readable}-{digest(key)}"

    def adapter(self, name: str, key: Key, fit: Callable[[], Adapter]) -> Adapter:
        """A fitted adapter."""
        path = self.place(f"{name}/adapter", key)
        if not path.exists():
            with _timed(name):
                fit().save_pretrained(path)
        return Adapter.from_pretrained(path)

    def vectors(self, name: str, key: Key, make: Callable[[], Sequence[Embeddings]]) -> list[Embeddings]:
        """Sets of vectors, in order."""
        path = self.place(f"{name}/vectors", key)
        if not path.exists():
            made = make()
            with atomic_folder(path) as folder:
                for number, embeddings in enumerate(made):
                    embeddings.save(folder / str(number))
        return [Embeddings.load(path / str(number)) for number in range(len(list(path.iterdir())))]

    def trained(self, name: str, key: Key, module: nn.Module, train: Callable[[], nn.Module]) -> None:
        """Give ``module`` the values that ``train`` returns, or returned in an earlier run."""
        path = self.place(f"{name}/weights", key).with_suffix(".safetensors")
        if not path.exists():
            with _timed(name):
                found = {k: v.contiguous() for k, v in train().state_dict().items()}
            with atomic_file(path) as temporary:
                save_file(found, temporary)
        module.load_state_dict(load_file(path))


@contextmanager
def _timed(name: str) -> Iterator[None]:
    """Say on stderr how long something took."""
    started = time.perf_counter()
    yield
    print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
