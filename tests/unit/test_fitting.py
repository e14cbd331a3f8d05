from __future__ import annotations

import json

import numpy as np
import pytest
import worlds

from crossfade.errors import ConfigError, FitError
from crossfade.fitting import fit, method_from_options
from crossfade.methods import Procrustes, Ridge
from crossfade.pairing import pair


def test_the_simplest_of_equals_is_chosen(rotated: worlds.World) -> None:
    """Ridge and the rest are as exact as Procrustes here, and identity is not."""
    found = fit(rotated.pairs())
    assert [c.label for c in found.candidates if c.chosen] == ["procrustes"]
    assert found.adapter.provenance is not None
    assert found.adapter.provenance.pairs == {"image": 200}
    by_label = {c.label: c for c in found.candidates}
    assert by_label["ridge"].difference is not None
    assert by_label["ridge"].difference.low <= 0.0 <= by_label["ridge"].difference.high
    identity = by_label["identity"].difference
    assert identity is not None
    assert identity.high < -0.5
    assert "Its lead over identity is" in found.sentence
    assert "chance" not in found.sentence.split("identity")[1]


def test_the_better_method_is_chosen_where_it_is_better() -> None:
    found = fit(worlds.affine(noise=0.1).pairs())
    assert [c.method for c in found.candidates if c.chosen] == ["ridge"]
    assert "different" in found.candidates[0].reason or "one dimension" in found.candidates[0].reason


def test_links_decide_by_texts_and_images_and_two_encoders_are_only_shown(two_modalities: worlds.World) -> None:
    found = fit(two_modalities.pairs())
    (chosen,) = [c for c in found.candidates if c.chosen]
    assert set(chosen.recall or ()) == {"text→image", "image→text"}
    hybrids = [c for c in found.candidates if c.method == "slerp"]
    assert [c.label for c in hybrids] == ["slerp", "slerp (weighting=adaptive)"]
    for hybrid in hybrids:
        assert hybrid.score is not None
        assert not hybrid.chosen
        assert "old model" in hybrid.reason


def test_nothing_is_claimed_between_unrelated_spaces() -> None:
    found = fit(worlds.unrelated().pairs())
    assert "no better than chance" in found.sentence


def test_queries_of_a_modality_without_pairs_rule_methods_out(two_modalities: worlds.World) -> None:
    images = pair(two_modalities.old["image"], two_modalities.new["image"])
    with pytest.raises(FitError, match="serve text queries"):
        fit(images, serve=("text",))


def test_the_same_seed_chooses_the_same(rotated: worlds.World) -> None:
    first, second = fit(rotated.pairs(), seed=2), fit(rotated.pairs(), seed=2)
    assert first.to_dict() == second.to_dict()
    assert json.loads(json.dumps(first.to_dict()))["method"] == "procrustes"


def test_a_named_method_is_fitted_and_nothing_is_tried(rotated: worlds.World) -> None:
    for method in ("ridge", Ridge()):
        found = fit(rotated.pairs(), method)
        assert found.candidates == ()
        assert found.adapter.provenance is not None
        assert found.adapter.provenance.method == "ridge"


def test_a_set_that_was_divided_by_the_same_seed_can_be_chosen_on(rotated: worlds.World) -> None:
    train = rotated.pairs().split(held_out=0.2, seed=0).train
    assert fit(train, seed=0).held_out > 10


def test_a_single_pair_cannot_be_chosen_on(rotated: worlds.World) -> None:
    with pytest.raises(FitError, match="held out"):
        fit(pair(rotated.old["image"].select([0]), rotated.new["image"].select([0])))


def test_options_are_read_as_they_are_written() -> None:
    assert method_from_options("auto", ()) == "auto"
    assert method_from_options("ridge", ["penalty=2.5", "center=joint"]) == Ridge(penalty=2.5, center="joint")
    assert method_from_options("ridge", {"grid": [0.1, 1.0]}) == Ridge(grid=(0.1, 1.0))
    assert method_from_options("procrustes", []) == Procrustes()


@pytest.mark.parametrize(
    ("method", "options"),
    [("auto", ["a=1"]), ("rigde", []), ("ridge", ["lambda=1"]), ("ridge", ["penalty"]), ("ridge", ["penalty=-1"])],
)
def test_wrong_options_are_named(method: str, options: list[str]) -> None:
    with pytest.raises(ConfigError, match="found"):
        method_from_options(method, options)


def test_a_value_of_the_wrong_type_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="penalty"):
        method_from_options("ridge", ["penalty=much"])


def test_candidates_carry_finite_intervals(rotated: worlds.World) -> None:
    for candidate in fit(rotated.pairs()).candidates:
        if candidate.score is not None:
            assert np.isfinite([candidate.score.low, candidate.score.value, candidate.score.high]).all()
            assert candidate.score.low <= candidate.score.value <= candidate.score.high
