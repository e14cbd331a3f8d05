"""judge(): what is right, who is asked, what is left out, and the report that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from upgrades import CAPTIONS, Upgrade, make_upgrade

import crossfade as cf
from crossfade.errors import ConfigError, EvaluationError, SpaceMismatch
from crossfade.methods import Procrustes
from crossfade.methods.base import Adapter

QUICK = cf.Judgement(resamples=200)


@pytest.fixture(scope="module")
def upgrade(tmp_path_factory: pytest.TempPathFactory) -> Upgrade:
    return make_upgrade(tmp_path_factory.mktemp("upgrade"))


@pytest.fixture(scope="module")
def adapter(upgrade: Upgrade) -> Adapter:
    """Fitted on half of the items."""
    pairs = cf.pair(upgrade.old, upgrade.new)
    return Procrustes().fit(pairs.split(held_out=0.5, seed=3).train)


def test_a_good_upgrade_is_compatible_in_both_directions(upgrade: Upgrade, adapter: Adapter) -> None:
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK)
    assert {direction.name for direction in result.directions} == {"text→image", "image→text"}
    assert result.verdict.outcome == "compatible"
    for direction in result.directions:
        systems = {name: score.metrics["R@1"].value for name, score in direction.scores.items()}
        assert systems["old/old"] < systems["mapped/old"] < systems["new/new"]


def test_items_that_were_fitted_on_are_not_asked_and_their_number_is_told(upgrade: Upgrade, adapter: Adapter) -> None:
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK)
    assert adapter.provenance is not None
    fitted = adapter.provenance.pairs
    asked = {direction.name: direction.queries for direction in result.directions}
    images, texts = len(upgrade.new.sets["image"]), len(upgrade.new.sets["text"])
    assert fitted["text"] == CAPTIONS * fitted["image"]
    assert asked == {"image→text": images - fitted["image"], "text→image": texts - fitted["text"]}
    assert any(f"{fitted['image'] + fitted['text']} queries were left out" in note for note in result.notes)
    assert not result.warnings


def test_a_text_whose_image_was_fitted_on_is_left_out_too(upgrade: Upgrade) -> None:
    images_only = cf.pair(upgrade.old.sets["image"], upgrade.new.sets["image"]).split(held_out=0.5, seed=1).train
    result = cf.judge(Procrustes().fit(images_only), old=upgrade.old, new=upgrade.new, judgement=QUICK)
    asked = {direction.name: direction.queries for direction in result.directions}
    left = len(upgrade.new.sets["image"]) - len(images_only)
    assert asked == {"image→text": left, "text→image": CAPTIONS * left}


def test_all_queries_can_be_asked_with_a_loud_warning(upgrade: Upgrade, adapter: Adapter) -> None:
    judgement = cf.Judgement(resamples=200, all_queries=True)
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=judgement)
    asked = {direction.name: direction.queries for direction in result.directions}
    assert asked == {"image→text": len(upgrade.new.sets["image"]), "text→image": len(upgrade.new.sets["text"])}
    assert adapter.provenance is not None
    assert any(str(adapter.provenance.pairs["image"]) in warning for warning in result.warnings)


def test_an_adapter_fitted_on_everything_has_nothing_left_to_be_asked(upgrade: Upgrade) -> None:
    pairs = cf.pair(upgrade.old, upgrade.new)
    with pytest.raises(EvaluationError, match="fitted on all of the 1200"):
        cf.judge(Procrustes().fit(pairs), old=upgrade.old, new=upgrade.new, judgement=QUICK)


def test_swapped_sides_are_refused_and_named(upgrade: Upgrade, adapter: Adapter) -> None:
    with pytest.raises(SpaceMismatch, match="swapped"):
        cf.judge(adapter, old=upgrade.new, new=upgrade.old, judgement=QUICK)


def test_a_worse_new_model_is_not_compatible(tmp_path: Path) -> None:
    upgrade = make_upgrade(tmp_path, swap=True)
    pairs = cf.pair(upgrade.old, upgrade.new)
    adapter = Procrustes().fit(pairs.split(held_out=0.5).train)
    assert cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK).verdict.outcome == "not compatible"


def test_without_the_old_models_query_vectors_the_verdict_is_open(upgrade: Upgrade, adapter: Adapter) -> None:
    gallery = cf.Collection({"image": upgrade.old.sets["image"]}, upgrade.old.links)
    queries = cf.Collection({"text": upgrade.new.sets["text"]}, upgrade.new.links)
    result = cf.judge(adapter, old=gallery, new=queries, judgement=QUICK)
    assert result.verdict.outcome == "undecided"
    assert result.verdict.difference is None


def test_slices_are_reported_by_a_column(upgrade: Upgrade, adapter: Adapter) -> None:
    judgement = cf.Judgement(resamples=200, slices=("parity",))
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=judgement)
    for direction in result.directions:
        assert set(direction.slices["parity"]) == {"even", "odd"}
        assert sum(direction.slice_sizes["parity"].values()) == direction.queries


def test_what_is_relevant_must_be_said(upgrade: Upgrade, adapter: Adapter) -> None:
    old, new = cf.Collection(upgrade.old.sets), cf.Collection(upgrade.new.sets)
    with pytest.raises(EvaluationError, match="labels:COLUMN"):
        cf.judge(adapter, old=old, new=new, judgement=QUICK)
    with pytest.raises(EvaluationError, match="--links"):
        cf.judge(adapter, old=old, new=new, judgement=cf.Judgement(relevant="links"))
    with pytest.raises(EvaluationError, match="'nothing'"):
        cf.judge(adapter, old=old, new=new, judgement=cf.Judgement(relevant="labels:nothing"))
    with pytest.raises(ConfigError, match="found 'guess'"):
        cf.judge(adapter, old=old, new=new, judgement=cf.Judgement(relevant="guess"))


def test_labels_compare_within_a_modality(upgrade: Upgrade, adapter: Adapter) -> None:
    old = cf.Collection({"image": upgrade.old.sets["image"]})
    new = cf.Collection({"image": upgrade.new.sets["image"]})
    result = cf.judge(adapter, old=old, new=new, judgement=cf.Judgement(resamples=200, relevant="labels:parity"))
    (direction,) = result.directions
    assert direction.name == "image→image"
    assert direction.metric == "mAP"


def test_the_report_is_written_as_html_markdown_and_json(upgrade: Upgrade, adapter: Adapter, tmp_path: Path) -> None:
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK, report_to=tmp_path / "report")
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"report.html", "report.md", "report.json"}
    assert "compatible" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert np.isfinite([d.scores["mapped/old"].metrics["R@1"].value for d in result.directions]).all()


def test_rivals_are_asked_the_same_queries_and_judged_each_for_itself(upgrade: Upgrade, adapter: Adapter) -> None:
    train = cf.pair(upgrade.old, upgrade.new).split(held_out=0.5, seed=3).train
    rivals = {"ridge": cf.methods.Ridge().fit(train), "slerp": cf.methods.Slerp().fit(train)}
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK, rivals=rivals)
    alone = cf.judge(rivals["ridge"], old=upgrade.old, new=upgrade.new, judgement=QUICK)
    for direction, expected in zip(result.directions, alone.directions, strict=True):
        assert direction.rivals["ridge"].metrics == expected.scores["mapped/old"].metrics
        assert direction.rivals["ridge"].verdict == expected.verdict
        assert {name: rival.two_encoders for name, rival in direction.rivals.items()} == {"ridge": False, "slerp": True}
    assert cf.evaluation.Evaluation.from_dict(result.to_dict()) == result


def test_a_rival_changes_nothing_for_the_upgrade_itself(upgrade: Upgrade, adapter: Adapter) -> None:
    train = cf.pair(upgrade.old, upgrade.new).split(held_out=0.5, seed=3).train
    alone = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK)
    beside = cf.judge(
        adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK, rivals={"ridge": cf.methods.Ridge().fit(train)}
    )
    assert beside.verdict == alone.verdict
    assert [d.scores for d in beside.directions] == [d.scores for d in alone.directions]


def test_queries_that_only_a_rival_was_fitted_on_are_left_out_for_all(upgrade: Upgrade) -> None:
    pairs = cf.pair(upgrade.old, upgrade.new)
    small, large = (pairs.split(held_out=share, seed=3).train for share in (0.7, 0.4))
    adapter, rival = Procrustes().fit(small), cf.methods.Ridge().fit(large)
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK, rivals={"ridge": rival})
    fitted = np.union1d(small.part("image").source.ids, large.part("image").source.ids)  # type: ignore[union-attr]
    asked = {direction.name: direction.queries for direction in result.directions}
    assert asked["image→text"] == len(upgrade.new.sets["image"]) - len(fitted)
    assert not result.warnings


def test_a_rival_that_cannot_map_a_modality_is_shown_where_it_can(upgrade: Upgrade) -> None:
    train = cf.pair(upgrade.old, upgrade.new).split(held_out=0.5, seed=3).train
    texts = cf.pair(upgrade.old.sets["text"], upgrade.new.sets["text"]).split(held_out=0.5, seed=3).train
    adapter, rival = Procrustes().fit(train), cf.methods.Procrustes(center="modality").fit(texts)
    assert rival.modalities == ("text",)
    result = cf.judge(adapter, old=upgrade.old, new=upgrade.new, judgement=QUICK, rivals={"centred": rival})
    assert {d.name: set(d.rivals) for d in result.directions} == {"text→image": {"centred"}, "image→text": set()}
