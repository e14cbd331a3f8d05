"""Spaces: what makes two of them one, and that vectors of two never meet by accident."""

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfade.errors import ConfigError, FormatError, SpaceMismatch
from crossfade.spaces import MODALITIES, Space, require_same

CLIP = Space(
    model="openai/clip-vit-base-patch32",
    dimension=512,
    revision="3d74acf",
    preprocessing="resize 224 bicubic, centre crop",
    query_prefix="query: ",
    document_prefix="passage: ",
    runtime="float32/torch",
)

OTHER: dict[str, Any] = {
    "model": "openai/clip-vit-base-patch16",
    "dimension": 768,
    "revision": "3d74acg",
    "normalized": False,
    "metric": "dot",
    "modalities": ("image",),
    "preprocessing": "resize 224 bicubic",
    "query_prefix": "query:",
    "document_prefix": "",
    "runtime": "float16/torch",
}

spaces = st.builds(
    Space,
    model=st.text(min_size=1),
    dimension=st.integers(1, 10_000),
    revision=st.text(),
    normalized=st.booleans(),
    metric=st.sampled_from(["cosine", "dot", "l2"]),
    modalities=st.sampled_from([("image",), ("text",), ("image", "text"), ("text", "image")]),
    preprocessing=st.text(),
    query_prefix=st.text(),
    document_prefix=st.text(),
    runtime=st.text(),
)


def test_the_fingerprint_never_changes() -> None:
    """Stored vectors carry it: a change here makes every artifact that exists a stranger."""
    assert CLIP.fingerprint == "6dbe9de2bf5e"
    assert Space(model="m", dimension=1).fingerprint == "d8765d3bbbe8"
    other = Space(model="modèle/漢字", dimension=7, metric="l2", normalized=False, modalities=("text",))
    assert other.fingerprint == "fd4d2bbe68d1"


def test_the_fingerprint_is_the_same_in_another_process() -> None:
    code = "from crossfade.spaces import Space; print(Space(model='m', dimension=1).fingerprint)"
    answers = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert answers == {Space(model="m", dimension=1).fingerprint + "\n"}


def test_every_field_is_in_the_table_of_other_values() -> None:
    assert set(OTHER) == {field.name for field in dataclasses.fields(Space)}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_every_field_changes_the_fingerprint_and_the_space(name: str) -> None:
    changed = dataclasses.replace(CLIP, **{name: OTHER[name]})
    assert changed.fingerprint != CLIP.fingerprint
    assert list(changed.differences(CLIP)) == [name]
    with pytest.raises(SpaceMismatch, match=name):
        require_same(changed, CLIP, what="The queries")


@given(spaces, spaces)
def test_fingerprints_are_equal_exactly_when_spaces_are(a: Space, b: Space) -> None:
    assert (a.fingerprint == b.fingerprint) == (a == b)


@given(spaces)
def test_a_space_survives_json(space: Space) -> None:
    written = json.loads(json.dumps({**space.to_dict(), "fingerprint": space.fingerprint}))
    assert Space.from_dict(written) == space


def test_the_order_of_modalities_does_not_matter() -> None:
    a, b = Space(model="m", dimension=1, modalities=("text", "image")), Space(model="m", dimension=1)
    assert a == b
    assert a.fingerprint == b.fingerprint
    assert a.modalities == MODALITIES


def test_equal_dimensions_do_not_make_one_space() -> None:
    a, b = Space(model="all-MiniLM-L6-v2", dimension=384), Space(model="bge-small-en-v1.5", dimension=384)
    require_same(a, a, what="The queries")
    with pytest.raises(SpaceMismatch) as caught:
        require_same(a, b, what="The queries", hint="Fit an adapter.")
    for part in (
        "The queries",
        a.fingerprint,
        b.fingerprint,
        "all-MiniLM-L6-v2",
        "bge-small-en-v1.5",
        "Fit an adapter.",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": ""},
        {"model": None},
        {"dimension": 0},
        {"dimension": -3},
        {"dimension": True},
        {"dimension": 2.0},
        {"dimension": "512"},
        {"metric": "euclid"},
        {"modalities": ()},
        {"modalities": ("image", "audio")},
        {"normalized": "yes"},
        {"revision": None},
    ],
    ids=str,
)
def test_a_space_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Space(**{"model": "m", "dimension": 4, **wrong})


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "m", "dimension": 4, "colour": "red"}, "colour"),
        ({"model": "m"}, "dimension"),
        ({}, "model"),
        ({"model": "m", "dimension": 4, "modalities": 5}, "model"),
    ],
)
def test_fields_that_are_unknown_or_missing_are_refused(values: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Space.from_dict(values)


def test_it_prints_its_model_revision_dimension_and_fingerprint() -> None:
    assert str(CLIP) == f"openai/clip-vit-base-patch32@3d74acf (512-d, {CLIP.fingerprint})"
    assert str(Space(model="m", dimension=1)).startswith("m (1-d, ")


def test_it_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CLIP.dimension = 3  # type: ignore[misc]
