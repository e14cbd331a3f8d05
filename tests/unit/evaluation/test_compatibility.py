"""evaluate() on worlds whose answer is known."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from crossfade.embeddings import Embeddings
from crossfade.embeddings.core import item_keys
from crossfade.errors import EvaluationError, SpaceMismatch
from crossfade.evaluation import Evaluation, Relevance, evaluate
from crossfade.spaces import Space

OLD = Space(model="old", dimension=16)
NEW = Space(model="new", dimension=16)


@dataclass
class Made:
    method: str = "linear"
    config: dict[str, Any] = field(default_factory=lambda: {"rank": 3})
    fitted_on: Any = field(default_factory=lambda: np.array([1, 2, 3], dtype=np.uint64))


@dataclass
class Linear:
    """A linear adapter: all that evaluate() asks of one."""

    matrix: Any
    source: Space = NEW
    target: Space = OLD
    modalities: tuple = ("image", "text")
    two_encoders: bool = False
    provenance: Any = field(default_factory=Made)

    def transform(self, embeddings, *, old=None):
        assert embeddings.space == self.source
        mapped = embeddings.matrix() @ self.matrix
        if self.two_encoders:
            mapped = mapped + old.select(old.locate(embeddings.ids)).matrix()
        return Embeddings(embeddings.ids, mapped, self.target, embeddings.modality, metadata=embeddings.metadata)


@dataclass
class World:
    """Images and their texts, of the same latent; the new model sees it with less noise, rotated."""

    images: int = 120
    captions: int = 2
    old_noise: float = 1.0
    new_noise: float = 0.4
    seed: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        latent = rng.standard_normal((self.images, 16))
        self.rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0].astype(np.float32)
        self.links = [(f"t{i}-{c}", f"i{i}") for i in range(self.images) for c in range(self.captions)]
        ids = {"image": [f"i{i}" for i in range(self.images)], "text": [text for text, _ in self.links]}
        rows = {"image": np.arange(self.images), "text": np.repeat(np.arange(self.images), self.captions)}
        parity = {"image": rows["image"] % 2, "text": rows["text"] % 2}

        def seen(modality, noise, space, turn):
            clean = latent[rows[modality]]
            vectors = ((clean + noise * rng.standard_normal(clean.shape)) @ turn).astype(np.float32)
            return Embeddings(ids[modality], vectors, space, modality, metadata={"half": parity[modality]})

        both = ("image", "text")
        self.old = {m: seen(m, self.old_noise, OLD, np.eye(16)) for m in both}
        self.new = {m: seen(m, self.new_noise, NEW, self.rotation.T) for m in both}

    def evaluate(self, adapter=None, **changes):
        arguments = {
            "queries": list(self.new.values()),
            "gallery": list(self.old.values()),
            "old_queries": list(self.old.values()),
            "new_gallery": list(self.new.values()),
            "relevant": Relevance.from_links(self.links),
            "resamples": 300,
        }
        return evaluate(adapter or Linear(self.rotation), **{**arguments, **changes})


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module")
def good(world):
    return world.evaluate(slices=["half"])


def test_a_true_map_is_compatible_in_both_directions(good):
    assert [d.name for d in good.directions] == ["image→text", "text→image"]
    assert good.verdict.outcome == "compatible"
    assert good.warnings == ()
    for direction in good.directions:
        assert direction.metric == "R@1"
        assert set(direction.scores) == {"old/old", "mapped/old", "new/old", "old/mapped", "mapped/mapped", "new/new"}
        values = {system: score.metrics["R@1"].value for system, score in direction.scores.items()}
        assert values["old/old"] < values["mapped/old"] < values["new/new"] == values["mapped/mapped"]
        assert values["new/old"] < values["old/old"]
        for score in direction.scores.values():
            for estimate in score.metrics.values():
                assert estimate.low <= estimate.value <= estimate.high
        verdict = direction.verdict
        assert verdict.difference.value == pytest.approx(values["mapped/old"] - values["old/old"])
        expected = (values["mapped/old"] - values["old/old"]) / (values["new/new"] - values["old/old"])
        assert direction.gain.value == pytest.approx(expected)
        assert direction.gain.low < expected < direction.gain.high
        assert verdict.sentence.startswith("Compatible: R@1 goes from")
        assert verdict.more_queries is None


def test_flips_are_those_of_the_slow_definition(good, world):
    direction = good.directions[1]
    old, new = world.old, world.new

    def ranks(queries, gallery):
        q, g = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery))
        order = np.argsort(-(q @ g.T), axis=1)
        return np.argmax(order == np.repeat(np.arange(120), 2)[:, None], axis=1) + 1

    before = ranks(old["text"].matrix(), old["image"].matrix())
    after = ranks(new["text"].matrix() @ world.rotation, old["image"].matrix())
    negative, positive = (before == 1) & (after > 1), (before > 1) & (after == 1)
    assert direction.flips.metric == "R@1"
    assert direction.flips.negative.value == pytest.approx(negative.mean())
    assert direction.flips.positive.value == pytest.approx(positive.mean())
    by_id = {i: (b, a) for i, b, a in zip(old["text"].ids.tolist(), before.tolist(), after.tolist(), strict=True)}
    for change in (*direction.flips.worst, *direction.flips.best):
        assert (change.old_rank, change.mapped_rank) == by_id[change.id]
    falls = [change.mapped_rank - change.old_rank for change in direction.flips.worst]
    assert falls == sorted(falls, reverse=True)
    assert falls[0] == (after - before)[negative].max()


def test_slices_divide_the_queries(good):
    direction = good.directions[1]
    sizes = direction.slice_sizes["half"]
    assert sizes == {"0": 120, "1": 120}
    total = sum(direction.slices["half"][v]["mapped/old"].value * n for v, n in sizes.items())
    assert total / 240 == pytest.approx(direction.scores["mapped/old"].metrics["R@1"].value)


def test_an_evaluation_survives_json(good):
    assert Evaluation.from_dict(json.loads(json.dumps(good.to_dict()))) == good


def test_the_same_seed_gives_the_same_numbers(world, good):
    assert world.evaluate(slices=["half"]) == good
    other = world.evaluate(slices=["half"], seed=1)
    assert other != good
    assert (
        other.directions[0].scores["old/old"].metrics["R@1"].value
        == good.directions[0].scores["old/old"].metrics["R@1"].value
    )


@pytest.mark.parametrize("seed", range(5))
def test_unrelated_spaces_are_never_compatible(seed):
    world = World(seed=seed)
    wrong = np.linalg.qr(np.random.default_rng(seed + 100).standard_normal((16, 16)))[0].astype(np.float32)
    result = world.evaluate(Linear(wrong))
    assert result.verdict.outcome == "not compatible"
    assert result.verdict.sentence.startswith("Not compatible over 2 directions")


def test_the_same_vectors_are_not_compatible():
    world = World(old_noise=0.5)
    same = Linear(np.eye(16, dtype=np.float32), source=NEW)
    twins = [Embeddings(e.ids, e.rows, NEW, e.modality) for e in world.old.values()]
    result = world.evaluate(same, queries=twins, new_gallery=None)
    assert result.verdict.outcome == "not compatible"
    assert result.directions[0].verdict.difference.value == 0
    assert "no query changed" in result.directions[0].verdict.sentence


def test_a_small_difference_is_undecided_and_says_how_many_more():
    world = World(old_noise=0.7, new_noise=0.65, captions=1, seed=3)
    result = world.evaluate()
    undecided = [d.verdict for d in result.directions if d.verdict.outcome == "undecided"]
    assert undecided
    for verdict in undecided:
        assert verdict.difference.low <= 0 < verdict.difference.high
        number = "no practical number" if verdict.more_queries is None else str(verdict.more_queries)
        assert number in verdict.sentence or "any practical number" in verdict.sentence


def test_too_few_queries_decide_nothing_however_clear_they_look():
    world = World(images=12, old_noise=0.05, new_noise=0.05, captions=1)
    confused = [Embeddings(np.roll(e.ids, 1), e.rows, OLD, e.modality) for e in world.old.values()]
    result = world.evaluate(old_queries=confused)
    for direction in result.directions:
        assert direction.verdict.difference.low > 0
        assert direction.verdict.outcome == "undecided"
        assert "only 12 independent queries" in direction.verdict.sentence
        assert direction.verdict.more_queries >= 8


def test_without_old_vectors_of_the_queries_nothing_is_decided(world):
    result = world.evaluate(old_queries=None, new_gallery=None)
    assert result.verdict.outcome == "undecided"
    assert result.verdict.difference is None
    direction = result.directions[0]
    assert set(direction.scores) == {"mapped/old", "new/old"}
    assert direction.flips is None
    assert direction.gain is None
    assert "pass them as old_queries" in direction.verdict.sentence
    assert Evaluation.from_dict(json.loads(json.dumps(result.to_dict()))) == result


def test_swapped_old_and_new_are_named(world):
    swapped = {"queries": list(world.old.values()), "gallery": list(world.new.values())}
    with pytest.raises(SpaceMismatch, match="were old and new swapped"):
        world.evaluate(**swapped)
    for name, side in (("old_queries", world.new), ("new_gallery", world.old), ("gallery", world.new)):
        with pytest.raises(SpaceMismatch, match="were old and new swapped"):
            world.evaluate(**{name: list(side.values())})
    stranger = Embeddings(["i0"], np.ones((1, 16), np.float32), Space(model="other", dimension=16), "image")
    with pytest.raises(SpaceMismatch, match="other"):
        world.evaluate(queries=stranger)


def test_leaks_are_counted(world):
    texts = item_keys(world.new["text"].ids[:7], salt="text")
    images = item_keys(world.new["image"].ids[:3], salt="image")
    adapter = Linear(world.rotation, provenance=Made(fitted_on=np.concatenate([texts, images])))
    forward = [w for w in world.evaluate(adapter).warnings if "text→image" in w]
    assert len(forward) == 1
    assert "7 of 240 evaluated text queries and on 3 of the 120 image items" in forward[0]
    assert world.evaluate(adapter, fitted_on=np.array([5], np.uint64)).warnings == ()
    unknown = world.evaluate(Linear(world.rotation, provenance=None))
    assert "could not be checked" in unknown.warnings[0]
    assert unknown.method == "Linear"


def test_queries_without_an_answer_are_left_out_and_counted(world):
    result = world.evaluate(gallery=world.old["image"].select(np.arange(100)), new_gallery=None)
    assert [d.name for d in result.directions] == ["text→image"]
    assert result.directions[0].queries == 200
    assert result.warnings == ("text→image: 40 of 240 queries have no right answer in the gallery and are left out.",)


def test_class_retrieval_leaves_the_query_itself_out(world):
    images = {"queries": world.new["image"], "gallery": world.old["image"], "old_queries": world.old["image"]}
    result = world.evaluate(**images, new_gallery=world.new["image"], relevant=Relevance.from_column("half"))
    direction = result.directions[0]
    assert (direction.name, direction.metric, direction.flips.metric) == ("image→image", "mAP", "CMC@1")
    assert set(direction.scores["old/old"].metrics) == {"mAP", "CMC@1", "CMC@5", "CMC@10"}
    assert direction.scores["old/old"].metrics["CMC@1"].value < 0.9


def test_a_chosen_metric_decides(world):
    graded = Relevance.from_qrels([(text, image, 2) for text, image in world.links])
    result = world.evaluate(queries=world.new["text"], gallery=world.old["image"], relevant=graded)
    assert (result.verdict.metric, result.directions[0].flips.metric) == ("nDCG@10", "R@10")
    assert world.evaluate(metric="R@5").directions[0].flips.metric == "R@5"
    assert world.evaluate(metric="MRR").verdict.metric == "MRR"


def test_two_encoder_adapters_get_the_old_vectors_and_map_queries_only(world):
    both = Linear(world.rotation, two_encoders=True)
    result = world.evaluate(both)
    assert set(result.directions[0].scores) == {"old/old", "mapped/old", "new/old", "new/new"}
    assert set(world.evaluate(both, old_queries=None).directions[0].scores) == {"new/old", "new/new"}


def test_an_adapter_for_one_modality_is_judged_on_it_only(world):
    result = world.evaluate(Linear(world.rotation, modalities=("text",)))
    assert [d.name for d in result.directions] == ["text→image"]
    assert set(result.directions[0].scores) == {"old/old", "mapped/old", "new/old", "new/new"}
    assert result.warnings == ("image→text is left out: the adapter was fitted for text only.",)


def test_bad_input_is_refused(world):
    with pytest.raises(EvaluationError, match="20 of 120 image ones are not among its 100"):
        world.evaluate(new_gallery=world.new["image"].select(np.arange(100)))
    with pytest.raises(EvaluationError, match="must be in old_queries too"):
        world.evaluate(old_queries=world.old["text"].select(np.arange(9)))
    with pytest.raises(EvaluationError, match="'colour' is none of the image queries'"):
        world.evaluate(slices=["colour"])
    with pytest.raises(EvaluationError, match="needs queries"):
        world.evaluate(queries=[])
    with pytest.raises(EvaluationError, match="one set a modality"):
        world.evaluate(queries=[world.new["text"], world.new["text"]])
    with pytest.raises(EvaluationError, match="No query can be evaluated: among 120 image and 240 text queries"):
        world.evaluate(relevant=Relevance.from_links([("x", "y")]))
    with pytest.raises(EvaluationError, match="whole numbers from 1"):
        world.evaluate(ks=(0,))
    with pytest.raises(EvaluationError, match="R@K"):
        world.evaluate(metric="recall")
