"""Adoption: does the encoder that is named really make the vectors that are stored?

A sample is encoded again and compared, c_i = cos(stored_i, encoded_i)::

    same         c ≥ 0.999 in at least 95 % of the rows: the same up to number formats
    close        the median of c ≥ 0.9: another preprocessing, precision, prefix, or a later checkpoint of the same model
    mixed        at least 5 % of the rows are the same and at least 5 % have c < 0.5: vectors of two models in one field
    mismatched   stored vectors are near encoded ones, but of other ids: ids and items were shuffled
    related      a rotation, fitted on one half, brings the other half's median of c above 0.5: another model
    different    none of these: another model, or other items

The thresholds are our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crossfade.embeddings.core import as_ids
from crossfade.errors import EncoderError
from crossfade.spaces import Space
from crossfade.stores import Store
from crossfade.two_stage.items import Embed, embed_all
from crossfade.upgrading.sampling import sample_ids

__all__ = ["Adoption", "Finding", "check_encoder", "compare_vectors"]

Floats = npt.NDArray[np.float32]
Finding = Literal["same", "close", "mixed", "mismatched", "related", "different"]

SAME, MOSTLY, CLOSE, FAR, FEW, RELATED = 0.999, 0.95, 0.9, 0.5, 0.05, 0.5

WORDS: Mapping[Finding, str] = {
    "same": "The encoder makes the vectors that are stored.",
    "close": "The vectors are near those of the encoder and not the same: look at preprocessing, prefix, precision and revision.",
    "mixed": "Some rows are the encoder's and others are not: the field holds vectors of two models. Re-embed the others, or "
    "move them to a field of their own, before anything else.",
    "mismatched": "The vectors are the encoder's, but of other ids: the items that were given are not those of the rows.",
    "related": "Another model made the vectors: its geometry is alike up to a rotation. Name that model.",
    "different": "The encoder did not make these vectors, or not of these items. Name the model that did.",
}


@dataclass(frozen=True, slots=True)
class Adoption:
    """What comparing a sample showed.

    Attributes:
        finding: as the module says.
        sentence: in words.
        rows: how many were compared.
        unreadable: sampled rows whose item could not be encoded.
        cosine: quantiles of c: 5 %, 50 %, 95 %.
        same: share of rows with c ≥ 0.999.
        normalized: whether the stored vectors have unit norm, within 1 %.
        norms: quantiles of the stored vectors' norms: 5 %, 50 %, 95 %.
        notes: what else differs.
    """

    finding: Finding
    sentence: str
    rows: int
    unreadable: int
    cosine: tuple[float, float, float]
    same: float
    normalized: bool
    norms: tuple[float, float, float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def check_encoder(
    store: Store, field: str, embed: Embed, space: Space, *, sample: int = 200, seed: int = 0
) -> Adoption:
    """Encode some rows' items again, and compare.

    Args:
        store: the collection; nothing of it is changed.
        field: whose vectors are looked at.
        embed: ids → vectors of the encoder that is said to have made them.
        space: of the encoder.
        sample: rows.
        seed: of the sample.

    Raises:
        EncoderError: the dimension is another, or no item could be encoded.
    """
    dimension = store.describe().fields[field].dimension if field in store.describe().fields else 0
    if dimension and dimension != space.dimension:
        raise EncoderError(
            f"The field {field!r} of {store.address} has {dimension} dimensions; {space} was named as its model. Name another."
        )
    rows = store.fetch(sample_ids(store, sample, seed=seed), fields=[field])
    there = rows.select(np.flatnonzero(rows.vectors[field].present))
    made = embed_all(embed, as_ids([str(id_) for id_ in there.ids]), space)
    if not made.fine.any():
        raise EncoderError(
            f"None of {len(there)} items could be encoded. Do the ids of the items match those of {store.address}?"
        )
    stored = there.vectors[field].values[made.fine]
    found = compare_vectors(stored, made.vectors[made.fine], space)
    return Adoption(**{**asdict(found), "unreadable": int((~made.fine).sum()), "notes": found.notes})


def compare_vectors(stored: Floats, encoded: Floats, space: Space) -> Adoption:
    """The finding on stored vectors and those of the encoder, of the same rows.

    Args:
        stored: float32 [n, d].
        encoded: float32 [n, d].
        space: of the encoder.
    """
    norms = np.linalg.norm(stored, axis=1)
    a, b = _unit(stored), _unit(encoded)
    c = np.einsum("ij,ij->i", a, b)
    same = float((c >= SAME).mean())
    finding = _finding(a, b, c, same)
    low, middle, high = (round(float(x), 4) for x in np.quantile(c, [0.05, 0.5, 0.95]))
    short, usual, long = (round(float(x), 4) for x in np.quantile(norms, [0.05, 0.5, 0.95]))
    normalized = bool((np.abs(norms - 1.0) < 0.01).all())
    notes = []
    if space.normalized and not normalized:
        notes.append(
            f"The stored vectors are not of unit norm (median {usual}), and the encoder's space says that they are: register "
            "them with normalized=false."
        )
    return Adoption(
        finding, WORDS[finding], len(c), 0, (low, middle, high), same, normalized, (short, usual, long), tuple(notes)
    )


def _finding(a: Floats, b: Floats, c: npt.NDArray[np.floating], same: float) -> Finding:
    if same >= MOSTLY:
        return "same"
    if same >= FEW and float((c < FAR).mean()) >= FEW:
        return "mixed"
    if float(np.median(c)) >= CLOSE:
        return "close"
    nearest = a @ b.T
    np.fill_diagonal(nearest, -1.0)
    if float((nearest.max(axis=1) >= SAME).mean()) >= 0.5:
        return "mismatched"
    half = len(a) // 2
    if half >= 2 * a.shape[1] or half >= 50:
        u, _, vt = np.linalg.svd(b[:half].T @ a[:half])
        turned = np.einsum("ij,ij->i", b[half:] @ (u @ vt), a[half:])
        if float(np.median(turned)) >= RELATED:
            return "related"
    return "different"


def _unit(vectors: Floats) -> Floats:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Floats = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit
