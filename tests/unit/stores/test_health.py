"""What a scan of a collection finds wrong with it."""

from __future__ import annotations

import numpy as np
import pytest

from crossfade.stores import MemoryBackend, Records, Store, VectorField, Vectors
from crossfade.stores.health import examine, separation


def cloud(seed: int, n: int = 300, d: int = 16, cone: float = 2.0) -> np.ndarray:
    """A model's vectors lie around a direction of their own."""
    generator = np.random.default_rng(seed)
    vectors = (
        generator.standard_normal((n, d)) + cone * np.sqrt(d) * np.linalg.qr(generator.standard_normal((d, 1)))[0].T
    )
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def store_of(vectors: np.ndarray, present: np.ndarray | None = None) -> Store:
    store = Store(MemoryBackend([VectorField("v", vectors.shape[1])]))
    there = np.ones(len(vectors), dtype=bool) if present is None else present
    fine = np.where(np.isfinite(vectors), vectors, 0.0)
    store.upsert(Records([f"r{n}" for n in range(len(vectors))], {"v": Vectors(fine, there)}))
    for n in np.flatnonzero(~np.isfinite(vectors).all(axis=1)):  # no store of ours would write these
        store._backend._vectors["v"][f"r{n}"] = vectors[n]  # type: ignore[attr-defined]
    return store


def test_a_healthy_collection_has_nothing_wrong() -> None:
    found = examine(store_of(cloud(0)), "v")
    assert (found.rows, found.holes, found.not_finite, found.zero, found.not_unit, found.repeated) == (
        300,
        0,
        0,
        0,
        0,
        0,
    )
    assert found.notes == ()
    assert found.examples == {}
    assert found.norms == (1.0, 1.0, 1.0)


def test_every_fault_is_counted_and_named() -> None:
    vectors = cloud(1)
    present = np.ones(300, dtype=bool)
    present[[3, 4]] = False
    vectors[5, 2] = np.nan
    vectors[6] = 0
    vectors[7] *= 3
    vectors[9] = vectors[8]
    found = examine(store_of(vectors, present), "v")
    assert (found.holes, found.not_finite, found.zero, found.not_unit, found.repeated) == (2, 1, 1, 1, 1)
    assert found.examples == {
        "hole": ["r3", "r4"],
        "not finite": ["r5"],
        "zero": ["r6"],
        "not unit": ["r7"],
        "repeated": ["r9"],
    }
    assert len(found.notes) == 5


def test_a_model_that_never_normalised_is_no_fault() -> None:
    found = examine(store_of(3 * cloud(2)), "v")
    assert found.not_unit == 300
    assert found.notes == ()


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_two_models_in_one_field_are_suspected(share: float) -> None:
    many = int(300 * share)
    found = examine(store_of(np.concatenate([cloud(0)[many:], cloud(5)[:many]])), "v")
    assert found.separation > 3
    assert "two clouds" in found.notes[-1]


def test_one_model_is_not() -> None:
    assert separation(cloud(0)) < 3
    assert separation(cloud(0, cone=0.0)) < 3
    assert separation(cloud(0, n=10)) == 0.0
    assert separation(np.ones((100, 4), dtype=np.float32)) == 0.0


def test_an_empty_collection_is_said_to_be_so() -> None:
    found = examine(Store(MemoryBackend([VectorField("v", 4)])), "v")
    assert (found.rows, found.notes) == (0, ())
