"""float16 to float32 by integer moves is the cast, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.embeddings import float16
from crossfade.embeddings.float16 import CHUNK, halves_are_finite, narrow, widen

EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)]


def test_every_finite_half_is_exact() -> None:
    out = np.empty(FINITE.shape, np.float32)
    assert widen(FINITE, out)
    assert np.array_equal(out.view(np.uint32), FINITE.astype(np.float32).view(np.uint32))


@pytest.mark.parametrize("bad", EVERY[~np.isfinite(EVERY)][::97])
@pytest.mark.parametrize("place", [0, 5, CHUNK - 1, CHUNK, CHUNK + 4])
def test_what_is_not_finite_is_noticed_and_kept(bad: np.float16, place: int) -> None:
    halves = np.full(CHUNK + 5, -1.5, np.float16)
    halves[place] = bad
    out = np.empty(halves.shape, np.float32)
    assert not widen(halves, out)
    assert np.array_equal(out, halves.astype(np.float32), equal_nan=True)


def test_arrays_that_cannot_be_reinterpreted_are_cast() -> None:
    halves = np.arange(24, dtype=np.float16).reshape(4, 6)
    for odd in (np.asfortranarray(halves), halves[:, ::2], halves.astype(">f2")):
        out = np.empty(odd.shape, np.float32)
        assert widen(odd, out)
        assert np.array_equal(out, odd.astype(np.float32))


def test_a_processor_that_flushes_subnormals_gets_the_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float16, "_subnormals_are_flushed", lambda: True)
    out = np.empty(FINITE.shape, np.float32)
    assert widen(FINITE, out)
    assert np.array_equal(out, FINITE.astype(np.float32))
    assert not widen(EVERY, np.empty(EVERY.shape, np.float32))


def test_an_empty_array_is_finite() -> None:
    assert widen(np.empty((0, 4), np.float16), np.empty((0, 4), np.float32))


def test_every_finite_half_comes_back_from_float32() -> None:
    back = np.empty(FINITE.shape, np.float16)
    narrow(FINITE.astype(np.float32), back)
    assert np.array_equal(back.view(np.uint16), FINITE.view(np.uint16))


def test_rounding_is_that_of_a_cast() -> None:
    """All of float32's numbers that float16 can hold, sampled, and every midpoint between two halves."""
    bits = np.random.default_rng(0).integers(0, 2**32, 400_000, dtype=np.uint32).view(np.float32)
    ordered = np.unique(FINITE.astype(np.float32))
    singles = np.concatenate([bits[np.abs(bits) <= 65_504], (ordered[1:] + ordered[:-1]) / 2])
    found = np.empty(singles.shape, np.float16)
    narrow(singles, found)
    cast = singles.astype(np.float16)
    normal = np.abs(singles) >= 2.0**-14
    assert np.array_equal(found[normal].view(np.uint16), cast[normal].view(np.uint16))
    steps = np.abs(found.view(np.int16).astype(int) - cast.view(np.int16).astype(int))
    assert steps[~normal].max() <= 1


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=50))
def test_finite_halves_are_told_by_their_bits(bits: list[int]) -> None:
    halves = np.array(bits, dtype=np.uint16).view(np.float16)
    assert halves_are_finite(halves) == bool(np.isfinite(halves).all())
    assert halves_are_finite(halves[::-1]) == bool(np.isfinite(halves).all())
