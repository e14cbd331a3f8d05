"""Several files that are one set of vectors: which they are, in what order, and whose space they say they hold."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from crossfade.errors import ConfigError, FormatError, InvalidVectors, SpaceMismatch, StorageError
from crossfade.spaces import Modality, Space, require_same

__all__ = ["in_number_order", "refuse_existing", "resolve_modality", "resolve_space", "shard_files"]


def in_number_order(paths: Iterable[Path]) -> list[Path]:
    """Sorted by the numbers in their names: ``part_2`` before ``part_10``, and ``part_002`` as ``part_2``."""

    def key(path: Path) -> tuple[list[tuple[int, str]], str]:
        pieces = re.findall(r"\d+|\D+", path.name)
        return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in pieces], path.name

    return sorted(paths, key=key)


def shard_files(location: str | Path | Sequence[str | Path], suffixes: Sequence[str]) -> list[Path]:
    """The files that ``location`` names.

    Args:
        location: a file, a folder (all its files with one of ``suffixes``), a pattern such as ``part_*.npy``, or a list
            of files. A list keeps its order; a folder and a pattern are put :func:`in_number_order`.
        suffixes: for example ``(".npy",)``.

    Raises:
        FormatError: a file is missing, or a folder or pattern holds none.
    """
    if not isinstance(location, (str, Path)):
        files = [Path(path) for path in location]
    elif Path(location).is_dir():
        files = in_number_order(p for p in Path(location).iterdir() if p.suffix in suffixes and p.name[0] != ".")
    elif not Path(location).exists() and glob.has_magic(str(location)):
        files = in_number_order(Path(path) for path in glob.glob(str(location)))  # noqa: PTH207 (may be absolute)
    else:
        files = [Path(location)]
    if not files:
        raise FormatError(f"{location} must hold {' or '.join(suffixes)} files, and none is there. Check the name.")
    for file in files:
        if not file.is_file():
            raise FormatError(f"{file} is missing. Check the name.")
    return files


def resolve_space(stored: Space | None, given: Space | None, *, source: Path, dimension: int) -> Space:
    """The space of vectors read from ``source``: what the file says, or what the caller names where it says nothing.

    Raises:
        SpaceMismatch: the file says another space than the caller.
        ConfigError: neither says one.
        InvalidVectors: the vectors have another dimension.
    """
    if stored is not None and given is not None:
        hint = "Leave the space out to take the file's own, or read the vectors that you mean."
        require_same(stored, given, what=f"The vectors in {source}", hint=hint)
    space = stored or given
    if space is None:
        raise ConfigError(
            f"{source} does not say which space its {dimension}-d vectors live in. Name it: "
            f"space=Space(model=…, dimension={dimension})."
        )
    if space.dimension != dimension:
        raise InvalidVectors(
            f"Vectors of {space} must have dimension {space.dimension}; those in {source} have {dimension}. Name the "
            "right space."
        )
    return space


def resolve_modality(stored: Modality | None, given: Modality | None, *, source: Path, space: Space) -> Modality:
    """The modality of vectors read from ``source``; a space of one modality needs none to be named.

    Raises:
        SpaceMismatch: the file says another modality than the caller.
        ConfigError: neither says one, and the space holds both.
    """
    if stored is not None and given is not None and stored != given:
        raise SpaceMismatch(
            f"{source} holds {stored} vectors; asked for {given} ones. Name the right file or modality."
        )
    only = space.modalities[0] if len(space.modalities) == 1 else None
    modality = stored or given or only
    if modality is None:
        raise ConfigError(
            f"{source} does not say what its vectors are of. Name it: modality='image' or modality='text'."
        )
    return modality


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file that nobody said may be replaced.

    Raises:
        StorageError: ``path`` exists and ``overwrite`` is false.
    """
    if path.exists() and not overwrite:
        raise StorageError(
            f"{path} exists already, and nothing is overwritten unasked. Choose another place, or allow overwriting."
        )
