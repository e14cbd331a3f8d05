"""Is a collection fit to be upgraded? One scan of a vector field: holes, zeros, norms, repeated vectors, two clouds.

::

    two clouds   on the first principal direction of a sample, 2-means find parts with means m₁, m₂ and deviations s₁, s₂, each at
                 least 5 % of the rows, and |m₁ − m₂| / (s₁ + s₂) > 3

A model's vectors lie in one cone, and those of another one in another, so that two clouds may be two models in one field; they
may also be two kinds of items. ``crossfade upgrade check`` with the model decides. The threshold is our choice.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from crossfade.stores.store import Store

__all__ = ["Health", "examine", "separation"]

SAMPLE = 2000
APART, FEW = 3.0, 0.05
UNIT = 1e-2
"""How far a norm may be from 1."""
EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Health:
    """What a scan of one field showed.

    Attributes:
        field: its name.
        rows: of the collection.
        holes: rows without a vector.
        not_finite: rows with NaN or infinity in their vector.
        zero: rows whose vector is zero.
        not_unit: rows whose vector has another norm than 1, by more than 1 %.
        norms: quantiles of the norms: 0 %, 50 %, 100 %.
        repeated: rows whose vector another row before them has, bit for bit.
        examples: ids of such rows, by what is wrong with them.
        separation: how far apart two clouds are, as the module says; 0 where there is one.
        notes: what it comes to, in words; empty where nothing is wrong.
    """

    field: str
    rows: int
    holes: int
    not_finite: int
    zero: int
    not_unit: int
    norms: tuple[float, float, float]
    repeated: int
    examples: dict[str, list[str]]
    separation: float
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


def examine(store: Store, field: str, *, seed: int = 0) -> Health:
    """Scan one vector field; nothing is changed.

    Args:
        store: the collection.
        field: its vector field.
        seed: of the sample in which clouds are looked for.

    Raises:
        StoreChanged: there is no such field.
    """
    rows = 0
    seen: set[bytes] = set()
    found: dict[str, list[str]] = {"hole": [], "not finite": [], "zero": [], "not unit": [], "repeated": []}
    counts = dict.fromkeys(found, 0)
    norms: list[npt.NDArray[np.float32]] = []
    drawn: list[npt.NDArray[np.float32]] = []
    generator = np.random.default_rng(seed)

    def note(what: str, wrong: npt.NDArray[np.bool_], ids: list[Any]) -> None:
        counts[what] += int(wrong.sum())
        found[what] += [str(ids[place]) for place in np.flatnonzero(wrong)[: EXAMPLES - len(found[what])]]

    for batch in store.scan(fields=[field]):
        vectors, present = batch.vectors[field].values, batch.vectors[field].present
        finite: npt.NDArray[np.bool_] = np.asarray(np.isfinite(vectors).all(axis=1))
        length = np.linalg.norm(np.where(finite[:, None], vectors, 0.0), axis=1)
        fine = present & finite & (length > 0)
        again = np.zeros(len(batch), dtype=bool)
        for place in np.flatnonzero(fine):
            digest = blake2b(np.ascontiguousarray(vectors[place]).data, digest_size=16).digest()
            again[place] = digest in seen
            seen.add(digest)
        for what, wrong in (
            ("hole", ~present),
            ("not finite", present & ~finite),
            ("zero", present & finite & (length == 0)),
            ("not unit", fine & (np.abs(length - 1.0) > UNIT)),
            ("repeated", again),
        ):
            note(what, wrong, batch.ids)
        rows += len(batch)
        norms.append(length[fine].astype(np.float32))
        drawn.append(vectors[fine][generator.random(int(fine.sum())) < SAMPLE / max(SAMPLE, rows)])
    lengths = np.concatenate(norms) if norms else np.zeros(0, dtype=np.float32)
    sample = np.concatenate(drawn) if drawn else np.zeros((0, 1), dtype=np.float32)
    apart = separation(sample[generator.permutation(len(sample))[:SAMPLE]])
    low, middle, high = (float(x) for x in np.quantile(lengths, [0, 0.5, 1])) if len(lengths) else (0.0, 0.0, 0.0)
    mixed = 0 < counts["not unit"] < len(lengths)
    sentences = (
        (counts["hole"], f"{counts['hole']} rows have no vector: no search finds them."),
        (counts["not finite"], f"{counts['not finite']} rows have NaN or infinity: re-embed them."),
        (counts["zero"], f"{counts['zero']} rows are zero: they have no direction; re-embed them."),
        (
            mixed,
            f"{counts['not unit']} of {len(lengths)} vectors are not of unit norm, the others are: were two programs writing?",
        ),
        (
            counts["repeated"],
            f"{counts['repeated']} rows repeat another row's vector: the same item twice, or a constant answer.",
        ),
        (apart > APART, "The vectors lie in two clouds: perhaps two models. See crossfade upgrade check."),
    )
    notes = tuple(sentence for wrong, sentence in sentences if wrong)
    examples = {what: ids for what, ids in found.items() if ids and (what != "not unit" or mixed)}
    return Health(
        field,
        rows,
        counts["hole"],
        counts["not finite"],
        counts["zero"],
        counts["not unit"],
        (round(low, 4), round(middle, 4), round(high, 4)),
        counts["repeated"],
        examples,
        round(apart, 2),
        notes,
    )


def separation(vectors: npt.NDArray[np.float32]) -> float:
    """How far apart two clouds are, as the module says; 0 where there are not two.

    Args:
        vectors: [n, d], finite and not zero.
    """
    if len(vectors) < 2 / FEW:
        return 0.0
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centred = units - units.mean(axis=0)
    x = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    low, high = np.quantile(x, [0.05, 0.95])
    for _ in range(20):
        right = np.abs(x - high) < np.abs(x - low)
        if not 0 < right.sum() < len(x):
            return 0.0
        low, high = x[~right].mean(), x[right].mean()
    if min(right.mean(), 1 - right.mean()) < FEW:
        return 0.0
    spread = float(x[right].std() + x[~right].std())
    return float(high - low) / spread if spread > 0 else float("inf")
