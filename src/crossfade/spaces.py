"""A :class:`Space` is what a vector belongs to; two vectors may only meet when their spaces are the same.

Two models of equal dimension give vectors that can be multiplied with each other and mean nothing. So every set of
vectors in Crossfade carries the space it lives in, and every operation across two of them asks for an adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from crossfade.errors import ConfigError, FormatError, SpaceMismatch

__all__ = ["METRICS", "MODALITIES", "Metric", "Modality", "Space", "require_same"]

Metric = Literal["cosine", "dot", "l2"]
Modality = Literal["image", "text"]
METRICS: tuple[Metric, ...] = get_args(Metric)
MODALITIES: tuple[Modality, ...] = get_args(Modality)


@dataclass(frozen=True, kw_only=True, slots=True)
class Space:
    """Which model made a vector, and how.

    Attributes:
        model: the model's name: a hub id, the name of a local folder, or a vendor's model name.
        dimension: number of components.
        revision: the exact checkpoint: a commit, a version, or a digest of the weights; empty where nobody knows.
        normalized: whether every vector has unit L2 norm.
        metric: how vectors are compared: ``cosine``, ``dot`` or ``l2`` (negated Euclidean distance).
        modalities: what the space holds: ``image``, ``text`` or both.
        preprocessing: what is done to an item before the model sees it, for example ``resize 224 bicubic, centre
            crop``.
        query_prefix: put before a text that is searched with.
        document_prefix: put before a text that is stored.
        runtime: number format and engine of the forward pass, for example ``float32/torch``.
    """

    model: str
    dimension: int
    revision: str = ""
    normalized: bool = True
    metric: Metric = "cosine"
    modalities: tuple[Modality, ...] = MODALITIES
    preprocessing: str = ""
    query_prefix: str = ""
    document_prefix: str = ""
    runtime: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError(
                "A space must name its model, and the name is empty. Give the model's hub id or folder name."
            )
        for name in ("model", "revision", "preprocessing", "query_prefix", "document_prefix", "runtime"):
            if not isinstance(getattr(self, name), str):
                raise ConfigError(f"A space's {name} must be a string; found {getattr(self, name)!r}.")
        if not isinstance(self.normalized, bool):
            raise ConfigError(f"A space's 'normalized' must be true or false; found {self.normalized!r}.")
        if isinstance(self.dimension, bool) or not isinstance(self.dimension, int) or self.dimension < 1:
            raise ConfigError(f"A space's dimension must be a positive whole number; found {self.dimension!r}.")
        if self.metric not in METRICS:
            raise ConfigError(f"A space's metric must be one of {', '.join(METRICS)}; found {self.metric!r}.")
        wrong = [modality for modality in self.modalities if modality not in MODALITIES]
        if wrong or not self.modalities:
            raise ConfigError(
                f"A space's modalities must be among {', '.join(MODALITIES)}; found {list(self.modalities)}."
            )
        object.__setattr__(self, "modalities", tuple(m for m in MODALITIES if m in self.modalities))

    @property
    def fingerprint(self) -> str:
        """Twelve hexadecimal digits that are equal exactly when every field of two spaces is."""
        canonical = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {**values, "modalities": list(self.modalities)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Space:
        """The reverse of :meth:`to_dict`.

        Raises:
            FormatError: a field is unknown or missing.
            ConfigError: a field has a value that it cannot have.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known - {"fingerprint"})
        if unknown:
            raise FormatError(f"A space has the fields {sorted(known)}; found also {unknown}. Remove or rename them.")
        given = {name: value for name, value in values.items() if name in known}
        try:
            if "modalities" in given:
                given["modalities"] = tuple(given["modalities"])
            return cls(**given)
        except TypeError as error:
            raise FormatError(f"A space must name its model and its dimension; found {sorted(given)}.") from error

    def differences(self, other: Space) -> dict[str, tuple[Any, Any]]:
        """The fields in which two spaces differ, each with this one's and the other's value."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"{self.model}{revision} ({self.dimension}-d, {self.fingerprint})"


def require_same(found: Space, expected: Space, *, what: str, hint: str = "") -> None:
    """Refuse to go on when ``found`` is not ``expected``.

    Args:
        found: the space of the vectors at hand.
        expected: the space that the operation is defined in.
        what: the vectors, in the user's words, for example ``"the queries"``.
        hint: the way out; by default, to fit or apply an adapter.

    Raises:
        SpaceMismatch: they differ in any field, also when their dimensions agree.
    """
    if found == expected:
        return
    differences = "; ".join(f"{k}: {a!r} instead of {b!r}" for k, (a, b) in found.differences(expected).items())
    way_out = hint or "Map them with an adapter from the one to the other, or encode them with the expected model."
    raise SpaceMismatch(f"{what} must live in {expected}, but live in {found} ({differences}). {way_out}")
