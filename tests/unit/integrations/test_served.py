"""ServedEncoder follows the pointer, and never leaves the old space."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from live import NEW, OLD, Live, Numbers, seen
from stores import maker_of

from crossfade.errors import EncoderError, SpaceMismatch, UpgradeRefused
from crossfade.integrations import ServedEncoder
from crossfade.upgrading import Searcher, Upgrade, backfill, cutover, finish, rollback


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live.begin(maker_of("memory", tmp_path), tmp_path / "upgrade")


@pytest.fixture
def upgrade(live: Live) -> Upgrade:
    return live.planned()


def test_each_stage_is_encoded_as_a_search_of_the_old_field_needs_it(live: Live, upgrade: Upgrade) -> None:
    encoder = ServedEncoder(upgrade, old=Numbers(OLD), new=Numbers(NEW))
    images = [np.array([n]) for n in range(5)]
    by_old, mapped = seen(range(5), OLD), upgrade.adapter.map(seen(range(5), NEW), "image")

    def is_now(expected: np.ndarray) -> None:
        np.testing.assert_array_equal(encoder.encode_images(images), expected)
        assert encoder.space == OLD

    is_now(by_old)
    cutover(upgrade, live.store, force="a test")
    is_now(mapped)
    backfill(upgrade, live.store, live.embed, sample=50)
    is_now(mapped)
    rollback(upgrade, live.store, reason="a test")
    is_now(by_old)


def test_what_it_encodes_is_found_as_the_searcher_finds_it(live: Live, upgrade: Upgrade) -> None:
    cutover(upgrade, live.store, force="a test")
    (query,) = ServedEncoder(upgrade, new=Numbers(NEW)).encode_images([np.array([7])])
    (own,) = live.store.search(query[None], field="old", k=5)
    assert own.ids == Searcher(upgrade, live.store).search(vector=seen([7], NEW)[0], space=NEW, k=5).ids


def test_the_old_model_is_needed_before_the_cutover_only(live: Live, upgrade: Upgrade) -> None:
    encoder = ServedEncoder(upgrade, new=Numbers(NEW))
    with pytest.raises(EncoderError, match="give ServedEncoder old=ENCODER"):
        encoder.encode_images([np.array([1])])
    cutover(upgrade, live.store, force="a test")
    assert encoder.encode_images([np.array([1])]).shape == (1, OLD.dimension)


def test_a_finished_upgrade_takes_no_documents_and_a_dropped_field_no_query(live: Live, upgrade: Upgrade) -> None:
    encoder = ServedEncoder(upgrade, old=Numbers(OLD), new=Numbers(NEW))
    cutover(upgrade, live.store, force="a test")
    backfill(upgrade, live.store, live.embed, sample=50)
    finish(upgrade, live.store)
    with pytest.raises(UpgradeRefused, match="write the field 'new'"):
        encoder.encode_images([np.array([1])])
    assert encoder.truncated(["1"], role="query") == 1
    finish(upgrade, live.store, drop_old=True)
    with pytest.raises(UpgradeRefused, match="was dropped"):
        encoder.truncated(["1"], role="query")


def test_models_of_other_spaces_are_refused(upgrade: Upgrade) -> None:
    with pytest.raises(SpaceMismatch):
        ServedEncoder(upgrade, new=Numbers(OLD))
    with pytest.raises(SpaceMismatch):
        ServedEncoder(upgrade, old=Numbers(NEW), new=Numbers(NEW))
