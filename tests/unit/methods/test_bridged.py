"""Fitting a new model against a space whose own model is gone: its vectors are bridged ones, alone or among native ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import sequences

import crossfade as cf
from crossfade.errors import InvalidIds, PairingError
from crossfade.methods import Procrustes, Ridge

TRAIN, LATER, TEST = slice(0, 150), slice(150, 250), slice(250, 300)


@pytest.fixture(scope="module")
def world() -> sequences.Versions:
    return sequences.versions((12, 16, 20), (0.6, 0.3, 0.1))


def recall(adapter: cf.methods.Adapter, world: sequences.Versions) -> float:
    """Share of v3's test captions that find their image in the v1 gallery first."""
    queries, gallery = world.part(2, TEST)[1], world.part(0, TEST)[0]
    found = (adapter.map(queries.matrix(), "text") @ gallery.matrix().T).argmax(axis=1)
    return float((found == np.arange(len(queries)) // sequences.CAPTIONS).mean())


def test_v3_is_fitted_on_items_that_v1_has_never_seen(world: sequences.Versions) -> None:
    v2_to_v1 = Ridge(penalty=1.0).fit(world.pairs(1, 0, TRAIN))
    bridged = [v2_to_v1.transform(part) for part in world.part(1, LATER)]
    assert {part.space for part in bridged} == {world.sets[0]["image"].space}
    pairs = cf.pair(old=bridged, new=world.part(2, LATER))
    assert (pairs.source, pairs.target) == (world.sets[2]["image"].space, world.sets[0]["image"].space)
    assert len(pairs) == 100 * (1 + sequences.CAPTIONS)
    v3_to_v1 = Ridge(penalty=1.0).fit(pairs)
    assert (v3_to_v1.source, v3_to_v1.target) == (pairs.source, pairs.target)
    assert recall(v3_to_v1, world) > 5 / 50


def test_native_and_bridged_rows_of_one_space_are_fitted_on_together(world: sequences.Versions, tmp_path: Path) -> None:
    v2_to_v1 = Procrustes().fit(world.pairs(1, 0, TRAIN))
    native = world.part(0, slice(0, 60))
    bridged = [v2_to_v1.transform(part, out=tmp_path / part.modality) for part in world.part(1, slice(60, 250))]
    old = [cf.Embeddings.concatenate(two) for two in zip(native, bridged, strict=True)]
    new = world.part(2, slice(0, 250))
    links = [link for link in world.links if int(link[0].removeprefix("text-")) < 250 * sequences.CAPTIONS]
    pairs = cf.pair(old=old, new=new, links=links)
    assert {part.modality: len(part) for part in pairs.parts} == {"image": 250, "text": 500}
    targets = pairs.parts[0].target.matrix()
    np.testing.assert_array_equal(targets[:60], native[0].matrix())
    np.testing.assert_array_equal(targets[60:], v2_to_v1.map(world.part(1, slice(60, 250))[0].matrix(), "image"))
    mixed = Ridge(penalty=1.0).fit(pairs)
    few = Ridge(penalty=1.0).fit(world.pairs(2, 0, slice(0, 60)))
    assert recall(mixed, world) > recall(few, world)


def test_a_split_keeps_an_item_on_one_side_in_every_pair_of_versions(world: sequences.Versions) -> None:
    """The division depends on ids and seed alone, so one held-out set serves every step and the whole chain."""
    held = [
        set(world.pairs(newer, older).split(held_out=0.3, seed=7).held_out.item_keys().tolist())
        for newer, older in ((1, 0), (2, 1), (2, 0))
    ]
    assert held[0] == held[1] == held[2]


def test_bridged_vectors_are_not_mistaken_for_another_space(world: sequences.Versions) -> None:
    v2_to_v1 = Procrustes().fit(world.pairs(1, 0))
    bridged = v2_to_v1.transform(world.sets[1]["image"])
    with pytest.raises(PairingError, match="two spaces"):
        cf.pair(old=bridged, new=world.sets[0]["image"])
    with pytest.raises(InvalidIds, match="repeat"):
        cf.Embeddings.concatenate([bridged, world.sets[0]["image"]])
