"""The benchmark of compatible trainings: its tables, costs, settings, and a small upgrade from beginning to end."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.compatible_training import tables
from benchmarks.compatible_training.cost import FILE, Cost, metered
from benchmarks.compatible_training.images import GLYPHS, HELD_FACES, NATURAL, Chosen, Images, opened
from benchmarks.compatible_training.models import Place, named_classes
from benchmarks.compatible_training.rows import METRICS, OLD_MODEL, Row, rows_of, seed_of, values
from benchmarks.compatible_training.run import partial
from benchmarks.compatible_training.sequence import sequence
from benchmarks.compatible_training.settings import (
    BCT,
    BT2,
    INDEPENDENT,
    OCA,
    PARTS,
    POST_HOC,
    RECIPES,
    SETTINGS,
    WEIGHTS,
    Plan,
    Setting,
    smaller,
    varied,
)
from coloured import Coloured

from crossfade import METHODS, Embeddings, Space
from crossfade.backbones import ImageFormat
from crossfade.compatible import COMPATIBLE
from crossfade.compatible.base import OldModel
from crossfade.compatible.network import NetworkConfig
from crossfade.datasets import ImageItem
from crossfade.evaluation import Estimate, SequenceDirection, SequenceEvaluation
from crossfade.evaluation.sequence_result import CellResult
from crossfade.methods import PrefixAdapter

QUERIES = 60
UPGRADE = tables.Upgrade("classes", NATURAL, 8)


def row(name: str, seed: int, *, dimension: int = 8, **level: float) -> Row:
    """Random values around a level for each system: ``self``, ``cross``, ``other``."""
    generator = np.random.default_rng([seed, *name.encode()])
    system = {"self": "new/new", "cross": "new/old", "other": "old/new"}
    made = {
        system[which]: {metric: np.clip(generator.normal(mean, 0.05, QUERIES), 0, 1) for metric in METRICS}
        for which, mean in level.items()
    }
    return Row(name, made, dimension, 2 if name == BT2 else 1, 100.0 * (seed + 1))  # type: ignore[arg-type]


def world() -> dict[int, dict[str, Row]]:
    """Three seeds in which BT² keeps its promises, and OCA is neither above BCT nor as good as independent."""
    return {
        seed: {
            found.name: found
            for found in (
                row(OLD_MODEL, seed, self=0.40),
                row(INDEPENDENT, seed, self=0.60),
                row(BCT, seed, self=0.58, cross=0.45),
                row(OCA, seed, self=0.50, cross=0.45, dimension=12),
                row(BT2, seed, self=0.62, cross=0.52, other=0.5, dimension=16),
            )
        }
        for seed in range(3)
    }


def test_a_line_holds_means_over_queries_and_seeds_in_percent() -> None:
    seeds = world()
    lines = {line["row"]: line for line in tables.quality(seeds)}
    for title, system in (("self", "new/new"), ("cross", "new/old"), ("old/new", "old/new")):
        slow = np.mean([np.mean(seeds[seed][BT2].systems[system]["mAP"]) for seed in seeds])
        assert lines[BT2][f"{title} mAP"] == f"{100 * slow:.1f}"
    assert lines[BT2]["extra dimensions"] == 8
    assert (lines[BT2]["trainings"], lines[OCA]["trainings"], lines[BT2]["seeds"]) == (2, 1, 3)
    assert lines[BT2]["CPU-s"] == "200"  # of 100, 200 and 300
    assert "cross mAP" not in lines[OLD_MODEL]
    assert "old/new mAP" not in lines[OCA]


def test_a_difference_is_paired_and_resamples_queries_after_averaging_over_seeds() -> None:
    generator = np.random.default_rng(1)
    hard = generator.uniform(0, 1, QUERIES)  # of each query; both systems share it
    first = [hard + 0.02 + generator.normal(0, 0.01, QUERIES) for _ in range(3)]
    second = [hard + generator.normal(0, 0.01, QUERIES) for _ in range(3)]
    found = tables.difference(first, second)
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    drawn = []
    for _ in range(3000):
        rows = generator.integers(0, QUERIES, QUERIES)
        drawn.append(np.mean([a[rows].mean() - b[rows].mean() for a, b in zip(first, second, strict=True)]))
    assert found.low == pytest.approx(np.quantile(drawn, 0.025), abs=0.001)
    assert found.high == pytest.approx(np.quantile(drawn, 0.975), abs=0.001)
    assert found.low > 0  # unpaired, the interval would be ten times as wide


def test_bars_say_what_is_met_and_what_is_missed() -> None:
    met = {line["bar"]: line["met"] for line in tables.bars(world())}
    assert met == {
        "BT² is compatible with every seed, its interval above zero": "met",
        "BT² cross − BCT cross: above zero with its interval": "met",
        "BT² self − independent self: at least -1 point of mAP": "met",
        "OCA is compatible with every seed, its interval above zero": "met",
        "OCA cross − BCT cross: above zero with its interval": "missed",
        "OCA self − independent self: at least -1 point of mAP": "missed",
    }


def test_one_seed_that_is_not_compatible_misses_the_bar() -> None:
    seeds = world()
    seeds[1][BT2] = row(BT2, 1, self=0.62, cross=0.30)
    assert tables.verdict(seeds[0], BT2) == "compatible"
    assert tables.verdict(seeds[1], BT2) == "not compatible"
    found = next(line for line in tables.bars(seeds) if line["bar"].startswith("BT² is compatible"))
    assert found["met"] == "missed"
    assert found["measured"].startswith("compatible, not compatible; ")


def test_comparisons_are_made_over_the_seeds_that_have_both() -> None:
    seeds = world()
    del seeds[2][BCT]
    lines = tables.comparisons(seeds)
    (line,) = [
        x for x in lines if x["row"] == BT2 and x["difference"].startswith("cross − BCT") and x["metric"] == "mAP"
    ]
    both = [(seeds[s][BT2].systems["new/old"]["mAP"], seeds[s][BCT].systems["new/old"]["mAP"]) for s in (0, 1)]
    slow = 100 * np.mean([a.mean() - b.mean() for a, b in both])
    assert line["all seeds"].startswith(f"{slow:+.2f} [")
    assert "seed 1" in line
    assert "seed 2" not in line
    assert not [x for x in lines if x["row"] == OLD_MODEL]
    told = [x for x in lines if x["difference"] == "cross − old/old" and x["metric"] == "mAP"]
    assert {x["row"]: x["verdicts"] for x in told} == dict.fromkeys((BCT, OCA, BT2), "compatible")


def test_a_sweep_has_a_line_an_upgrade_and_row() -> None:
    short = tables.Upgrade("length", NATURAL, 4)
    lines = tables.swept({UPGRADE: world(), short: {0: world()[0]}})
    assert [(line["epochs"], line["row"]) for line in lines] == [
        (epochs, name) for epochs in (8, 4) for name in (BCT, OCA, BT2)
    ]
    assert all("[" in line["cross − old/old, mAP"] for line in lines)


def test_a_block_is_metered_over_every_attempt(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="killed"):
        _killed(tmp_path)
    first = Cost.of(tmp_path)
    assert first.seconds >= 0.05
    assert not first.done
    with metered(tmp_path):
        _work(0.05)
    assert Cost.of(tmp_path).done
    assert Cost.of(tmp_path).seconds >= first.seconds + 0.05
    assert set(json.loads((tmp_path / FILE).read_text())) == {field.name for field in fields(Cost)}
    assert Cost.of(tmp_path / "nothing") == Cost()


def _killed(folder: Path) -> None:
    with metered(folder):
        _work(0.05)
        raise RuntimeError("killed")


def _work(seconds: float) -> None:
    start = time.process_time()
    while time.process_time() < start + seconds:
        pass


def test_every_row_and_weight_exists_in_the_package() -> None:
    for recipe in (*RECIPES.values(), *varied()):
        COMPATIBLE[recipe.method](**recipe.options)
    for name, weights in WEIGHTS.items():
        for weight, default in weights.items():
            assert getattr(COMPATIBLE[RECIPES[name].method](), weight) == default
    assert all(method in METHODS for method in POST_HOC.values())
    known = {*RECIPES, *POST_HOC, *(recipe.name for recipe in varied())}
    assert all(set(part.rows) <= known for part in PARTS.values())
    assert all(part.setting in SETTINGS or not part.setting for part in PARTS.values())


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_can_be_built(name: str) -> None:
    setting = SETTINGS[name]
    independent, d_o = COMPATIBLE["independent"](), 384
    if setting.old is not None:
        d_o = (
            smaller(setting.old).network.build(independent, old=None, old_dimension=0, classes=4, seed=0).head.dimension
        )
    for recipe in (RECIPES[BCT], RECIPES[OCA], RECIPES[BT2]):
        vectors = np.random.default_rng(0).standard_normal((12, d_o)).astype(np.float32)
        old = OldModel.of(vectors, np.arange(12) % 4, 4)
        network = smaller(setting.new).network.build(
            COMPATIBLE[recipe.method](), old=old, old_dimension=d_o, classes=4, seed=0
        )
        assert network.head.dimension >= d_o


def test_seeds_differ_by_upgrade_and_purpose() -> None:
    assert len({seed_of(seed, purpose) for seed in range(3) for purpose in range(45)}) == 3 * 45
    assert seed_of(1, 2) == seed_of(1, 2)


def test_only_whole_parts_are_recorded() -> None:
    def given(**changed: object) -> argparse.Namespace:
        whole: dict[str, object] = {
            "quick": False,
            "only": list(PARTS),
            "data": ["tiny-imagenet-32", "glyphs"],
            "seeds": [0, 1, 2],
        }
        return argparse.Namespace(**(whole | changed))

    assert partial(given()) == []
    assert partial(given(quick=True)) == ["--quick"]
    assert partial(given(only=["classes"], data=["glyphs"])) == []
    assert partial(given(seeds=[0, 0, 1]))
    assert partial(given(seeds=[0], only=["sequence"])) == []


def test_images_are_chosen_by_their_number_among_those_of_their_class() -> None:
    kept = Chosen(Coloured(5), lambda item, number: int(item.metadata["label"]) < 3 and number in (0, 2))
    assert [item.id for item in kept.images()] == ["0/0", "0/2", "1/0", "1/2", "2/0", "2/2"]


def test_weights_are_chosen_on_training_images() -> None:
    glyphs = opened(GLYPHS, None, quick=True)
    tuning = glyphs.tuning()
    known, kept, held = ({item.id for item in data.images()} for data in (glyphs.train, tuning.train, tuning.test))
    assert kept | held == known
    assert not kept & held
    assert held == {name for name in known if name.rpartition("/")[2] in HELD_FACES}
    assert tuning.described != glyphs.described

    coloured = Images(NATURAL, Coloured(40), Coloured(5), "cifar", 1, "all").tuning()
    assert {item.id.rpartition("/")[2] for item in coloured.train.images()} == {str(n) for n in range(10)}
    assert {item.id.rpartition("/")[2] for item in coloured.test.images()} == {str(n) for n in range(10, 40)}


def test_an_item_is_not_found_by_itself() -> None:
    space = Space(model="m", dimension=2, modalities=("image",))
    angles = np.radians([0, 10, 20, 100])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    found = values(*[Embeddings(list("abcd"), vectors, space, "image", metadata={"label": [1, 2, 1, 2]})] * 2)
    # Nearest others: b of a; a of b (of equal angles, the lower row); b of c; c of d. Right are a–c and b–d.
    np.testing.assert_array_equal(found["CMC@1"], [0, 0, 0, 0])
    np.testing.assert_allclose(found["mAP"], [1 / 2, 1 / 3, 1 / 2, 1 / 2])


SMALL = NetworkConfig("resnet8", {"width": 4}, dimension=32, images=ImageFormat(size=16))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    torch.set_num_threads(1)
    return Place(tmp_path, Images("coloured", Coloured(12), Coloured(4, first=100), "off", 1, "8 classes"), 1)


def test_an_upgrade_is_trained_once_and_measured_again_to_the_same_values(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    setting = Setting(Plan(SMALL), Plan(SMALL, classes=0.5))

    def run() -> Mapping[str, Row]:
        return {
            found.name: found
            for found in rows_of(place, setting, seed=0, wanted=(INDEPENDENT, OCA, BT2, "ridge"), named=_never)
        }

    first = run()
    assert list(first) == [OLD_MODEL, INDEPENDENT, OCA, BT2, "ridge"]
    assert [found.dimension for found in first.values()] == [32, 32, 64, 64, 32]
    assert [found.trainings for found in first.values()] == [0, 1, 1, 2, 1]
    assert first[BT2].seconds > first[INDEPENDENT].seconds > 0.0
    assert set(first[OCA].systems) == {"new/new", "new/old", "old/new"}
    assert all(len(each) == 32 for found in first.values() for s in found.systems.values() for each in s.values())
    before = capsys.readouterr().err
    again = run()
    assert "oca-resnet8" in before
    assert "oca-resnet8" not in capsys.readouterr().err  # nothing was trained
    for name, found in again.items():
        assert found.seconds == first[name].seconds
        for system, measured in found.systems.items():
            np.testing.assert_array_equal(measured["mAP"], first[name].systems[system]["mAP"])


def _never() -> tuple[object, object]:
    raise AssertionError("this setting has an old image model")


class NamedColours(Coloured):
    """The same with a name for each class."""

    def images(self):  # type: ignore[no-untyped-def]
        for item in super().images():
            label = item.metadata["label"]
            yield ImageItem(item.id, item.load, {"label": label, "name": f"class number {label}"})


class Letters:
    """An encoder of texts: how often each letter occurs."""

    space = Space(model="letters", dimension=26, modalities=("text",))

    def encode_texts(self, texts: list[str], *, role: str = "document") -> np.ndarray:
        counts = np.asarray([[text.count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
        counts += np.arange(len(texts))[:, None] * np.eye(26, dtype=np.float32)[0]
        return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_a_text_space_can_be_the_old_one_of_an_image_model(place: Place) -> None:
    images = Images("named", NamedColours(12), NamedColours(4, first=100), "off", 1, "8 classes")
    place = Place(place.folder, images, 1)
    named = named_classes(images, Letters())  # type: ignore[arg-type]
    old = named.model
    assert old.train is not None
    assert len(old.train) == 96
    assert old.space.modalities == ("image", "text")
    own = named.names.matrix()[int(old.train.ids[20].split("/")[0])]
    np.testing.assert_array_equal(old.train.matrix()[20], own)
    model = place.trained(Plan(SMALL), RECIPES[OCA], seed=0, old=old)
    adapter = PrefixAdapter.between(model.space, old.space)
    assert adapter.modalities == ("image",)
    mapped = adapter.transform(model.test)
    assert mapped.space == named.names.space
    assert len(values(named.names, mapped)["mAP"]) == 8  # text queries find images


def test_the_matrix_of_a_sequence_becomes_lines() -> None:
    scores = {(1, 1): 0.3, (2, 1): 0.35, (2, 2): 0.5}
    cells = tuple(
        CellResult(i, j, (i, j), Estimate(value, value, value), None, None) for (i, j), value in scores.items()
    )
    share, mean = Estimate(1.0, 0.9, 1.0), Estimate(0.383, 0.38, 0.39)
    direction = SequenceDirection("image→image", 10, cells, share, mean, ())
    found = SequenceEvaluation(("a", "b"), "mAP", (direction,), (), 0.95, 100, 0)
    first, second = tables.sequences({(OCA, 0): found})
    assert (first["on a"], first["on b"], "AC" in first) == ("30.0", "", False)
    assert (second["on a"], second["on b"], second["AC"]) == ("35.0", "50.0", "100.0 [90.0, 100.0]")


def test_a_sequence_is_measured_on_every_gallery_before_it(place: Place) -> None:
    found = sequence(place, OCA, seed=0, quick=True)
    (direction,) = found.directions
    assert found.versions == ("alexnet", "vgg11", "resnet8", "vit_tiny")
    assert np.isfinite(direction.matrix()[np.tril_indices(4)]).all()
    assert direction.queries == 32
