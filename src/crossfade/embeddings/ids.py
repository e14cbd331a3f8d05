"""The names of rows: what counts as an id, whether ids are unique, and where in a long list each of many ids stands."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import InvalidIds

__all__ = ["IdIndex", "Ids", "as_ids", "item_keys", "numbered", "require_unique"]

Ids = npt.NDArray[np.str_]

CHUNK = 65_536
"""Ids hashed at a time: few enough to stay in cache, and one long id slows only its own chunk."""


def as_ids(ids: Sequence[object] | npt.NDArray[Any]) -> Ids:
    """Ids as a one-dimensional array of strings; whole numbers are written out.

    Raises:
        InvalidIds: an id is empty, missing or a number with a fraction, or they are not one-dimensional.
    """
    array = np.asarray(ids)
    if array.ndim != 1:
        raise InvalidIds(f"Ids must be a list, one id a row; found an array of shape {array.shape}.")
    if len(array) == 0:
        return np.empty(0, dtype="<U1")
    if array.dtype.kind == "U":
        if not isinstance(ids, np.ndarray) and not set(map(type, ids)) <= {str, np.str_}:
            array = np.asarray([_written_out(value, row) for row, value in enumerate(ids)])  # NumPy makes None 'None'
    elif array.dtype.kind in "OT":
        array = np.asarray([_written_out(value, row) for row, value in enumerate(array.tolist())])
    elif array.dtype.kind in "iu":
        array = array.astype(np.str_)
    elif array.dtype.kind == "S":
        try:
            array = np.char.decode(array, "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidIds(f"Ids that are bytes must be UTF-8 and are not ({error}). Decode them first.") from error
    if array.dtype.kind != "U":
        raise InvalidIds(f"Ids must be strings or whole numbers; found {array.dtype}. Convert them first.")
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    empty = np.flatnonzero(array == "")
    if len(empty):
        raise InvalidIds(f"No id may be empty; row {int(empty[0])} is. Give every row an id.")
    return array


def _written_out(value: object, row: int) -> str:
    if isinstance(value, str):
        return str(value)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(int(value))
    raise InvalidIds(f"Ids must be strings or whole numbers; row {row} has {value!r}. Give every row an id.")


def item_keys(ids: Ids, *, salt: str) -> npt.NDArray[np.uint64]:
    """A 64-bit key for each id: uint64 [n]; equal ids and salts have equal keys, on every machine and at every width.

    One pass of FNV-1a over the code points of many ids at once, then the finaliser of SplitMix64. It is not
    cryptographic: it divides items at random and recognises them again without their names being stored.

    Args:
        ids: [n] strings.
        salt: what the ids are ids of (``image``), or the seed of a split.
    """
    start = 0xCBF29CE484222325
    for byte in salt.encode():
        start = ((start ^ byte) * 0x100000001B3) % 2**64
    keys = np.full(len(ids), start, dtype=np.uint64)
    for first in range(0, len(ids), CHUNK):
        points = np.ascontiguousarray(ids[first : first + CHUNK]).view(np.uint32).reshape(-1, ids.dtype.itemsize // 4)
        part = keys[first : first + CHUNK]
        width = int(np.flatnonzero(points.any(axis=0)).max(initial=-1)) + 1
        for column in points[:, :width].T:
            part[:] = np.where(column == 0, part, (part ^ column) * np.uint64(0x100000001B3))
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))


def require_unique(ids: Ids) -> None:
    """Refuse ids that repeat.

    Sorting a million strings costs several times what sorting their 64-bit keys does; strings are compared only where
    keys are equal.

    Raises:
        InvalidIds: says how many repeat and names the first.
    """
    if bool((ids[1:] > ids[:-1]).all()):
        return
    keys = np.sort(item_keys(ids, salt=""))
    if not (keys[1:] == keys[:-1]).any():
        return
    names, counts = np.unique(ids, return_counts=True)
    repeats = int((counts - 1).sum())
    if repeats:
        raise InvalidIds(
            f"Ids must be unique; {repeats} repeat, the first is {str(names[counts > 1][0])!r}. Drop or rename the "
            "duplicates."
        )


def numbered(ids: Ids) -> tuple[Ids, npt.NDArray[np.int64]]:
    """The different ids, in an arbitrary order, and for each of ``ids`` which of them it is."""
    keys = item_keys(ids, salt="")
    order = np.argsort(keys)
    ordered = ids[order]
    same_key = keys[order][1:] == keys[order][:-1]
    same = ordered[1:] == ordered[:-1]
    if bool((same_key & ~same).any()):  # two different ids with one key
        names, inverse = np.unique(ids, return_inverse=True)
        return names, inverse.astype(np.int64)
    number = np.empty(len(ids), dtype=np.int64)
    number[order] = np.cumsum(np.concatenate([[False], ~same]))
    return ordered[np.concatenate([[True], ~same])], number


class IdIndex:
    """Finds ids in a list of unique ids.

    Args:
        ids: [n] unique strings.
    """

    def __init__(self, ids: Ids) -> None:
        self.ids = ids

    def locate(self, wanted: Ids) -> npt.NDArray[np.int64]:
        """The row number of each wanted id, and -1 where there is none: int64 [len(wanted)]."""
        if len(wanted) == 0 or len(self.ids) == 0:
            return np.full(len(wanted), -1, dtype=np.int64)
        if len(wanted) == len(self.ids) and bool((wanted == self.ids).all()):
            return np.arange(len(wanted), dtype=np.int64)
        if self._ambiguous:
            place = np.searchsorted(self.ids, wanted, sorter=self._by_name)
            candidate = self._by_name[np.minimum(place, len(self.ids) - 1)]
        else:
            keys = item_keys(wanted, salt="")
            order = np.argsort(keys)  # looking keys up in their own order keeps the search in cache
            place = np.empty(len(keys), dtype=np.int64)
            place[order] = np.searchsorted(self._keys, keys[order])
            candidate = self._order[np.minimum(place, len(self.ids) - 1)]
        return np.where(self.ids[candidate] == wanted, candidate, -1).astype(np.int64)

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
        keys = item_keys(self.ids, salt="")
        order = np.argsort(keys)
        return keys[order], order

    @property
    def _keys(self) -> npt.NDArray[np.uint64]:
        return self._sorted[0]

    @property
    def _order(self) -> npt.NDArray[np.int64]:
        return self._sorted[1]

    @cached_property
    def _ambiguous(self) -> bool:
        """Whether two different ids have one key: about once in ten thousand sets of a hundred million."""
        return bool((self._keys[1:] == self._keys[:-1]).any())

    @cached_property
    def _by_name(self) -> npt.NDArray[np.int64]:
        return np.argsort(self.ids, kind="stable")
