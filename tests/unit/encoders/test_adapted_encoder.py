"""An encoder and an adapter together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import checkpoints
import numpy as np
import numpy.typing as npt
import pytest

from crossfade.encoders import AdaptedEncoder, TransformersDualEncoder, load_encoder
from crossfade.errors import EncoderError, FitError, SpaceMismatch
from crossfade.methods.linear import LinearAdapter
from crossfade.methods.slerp import SlerpAdapter
from crossfade.spaces import Modality, Space

Dual = Callable[[str], TransformersDualEncoder]
OLD = Space(model="old", dimension=5)
WEIGHTS: npt.NDArray[np.float32] = np.random.default_rng(0).standard_normal((16, 5)).astype(np.float32)


def linear(source: Space, target: Space, modalities: Sequence[Modality]) -> LinearAdapter:
    return LinearAdapter(source, target, matrix=WEIGHTS, offsets={m: np.zeros(5) for m in modalities})


def test_it_maps_into_the_target_space(dual: Dual) -> None:
    encoder = dual("clip")
    adapted = AdaptedEncoder(encoder, linear(encoder.space, OLD, ("image", "text")))
    assert adapted.space == OLD
    for encode, items in (("encode_texts", checkpoints.SENTENCES), ("encode_images", checkpoints.pictures())):
        raw = getattr(encoder, encode)(items) @ WEIGHTS
        expected = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        np.testing.assert_allclose(getattr(adapted, encode)(items), expected, atol=1e-6)
    assert "tiny-clip" in repr(adapted)


def test_wrong_spaces_are_refused(dual: Dual) -> None:
    with pytest.raises(SpaceMismatch, match="The encoder's vectors must live in other"):
        AdaptedEncoder(dual("clip"), linear(Space(model="other", dimension=16), OLD, ("text",)))
    back = LinearAdapter(OLD, dual("clip").space, matrix=WEIGHTS.T, offsets={"text": np.zeros(16)})
    with pytest.raises(SpaceMismatch, match="swapped"):
        AdaptedEncoder(dual("clip"), back)


def test_a_modality_that_was_not_fitted(dual: Dual) -> None:
    adapted = AdaptedEncoder(dual("clip"), linear(dual("clip").space, OLD, ("text",)))
    with pytest.raises(FitError, match="fitted for text"):
        adapted.encode_images(checkpoints.pictures())


def test_an_adapter_of_two_encoders(dual: Dual, tmp_path: Path) -> None:
    encoder, old = dual("clip"), load_encoder(str(checkpoints.clip(tmp_path / "old", seed=3)), device="cpu")
    same = LinearAdapter(
        encoder.space, old.space, matrix=np.eye(16), offsets={"text": np.zeros(16), "image": np.zeros(16)}
    )
    halfway = SlerpAdapter(inner=same, weights={"text": 0.5, "image": 0.5}, interpolation="nlerp")
    adapted = AdaptedEncoder(encoder, halfway, old=old)
    for encode, items in (("encode_texts", checkpoints.SENTENCES), ("encode_images", checkpoints.pictures())):
        both = getattr(encoder, encode)(items) + getattr(old, encode)(items)
        expected = both / np.linalg.norm(both, axis=1, keepdims=True)
        np.testing.assert_allclose(getattr(adapted, encode)(items), expected, atol=1e-6)
    with pytest.raises(EncoderError, match="pass old=…"):
        AdaptedEncoder(encoder, halfway)
    with pytest.raises(SpaceMismatch, match="The old encoder's vectors"):
        AdaptedEncoder(encoder, halfway, old=encoder)
    with pytest.raises(EncoderError, match="has no use"):
        AdaptedEncoder(encoder, linear(encoder.space, OLD, ("text",)), old=old)
