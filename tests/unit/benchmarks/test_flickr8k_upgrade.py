"""The Flickr8k benchmark's own parts: who is trained on what, towers, the cache, paired comparisons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from benchmarks.flickr8k_upgrade import heads
from benchmarks.flickr8k_upgrade.cache import Cache, code_of
from benchmarks.flickr8k_upgrade.comparing import closed, difference, per_image
from benchmarks.flickr8k_upgrade.heads import BagOfWords, Flickr8k, Lookup
from torch import nn

from crossfade import Embeddings, Space
from crossfade.methods import Procrustes
from crossfade.methods.base import Adapter
from crossfade.pairing import pair

COLOURS = ("red", "green", "blue", "black", "white")


@pytest.fixture(scope="module")
def data() -> Flickr8k:
    """120 training, 20 validation and 20 test images, two captions each."""
    splits = ["train"] * 120 + ["val"] * 20 + ["test"] * 20
    images = [{"id": f"i{k}", "split": split} for k, split in enumerate(splits)]
    captions = [
        {"id": f"i{k}#{c}", "image": f"i{k}", "text": f"A {COLOURS[k % 5]} dog, {c}."}
        for k in range(160)
        for c in (0, 1)
    ]
    torch.manual_seed(0)
    return Flickr8k(images, captions, torch.randn(160, 6), torch.randn(160, 8), torch.randn(320, 5))


def test_no_image_is_seen_by_a_model_and_by_the_upgrade(data: Flickr8k) -> None:
    encoder, (pairs, captions), test = data.encoder_rows(), data.pair_rows(), data.image_rows("test")
    assert (len(encoder), len(pairs)) == (80, 40 + 20)
    assert sorted([*encoder, *pairs, *test]) == list(range(160))
    assert {data.captions[row]["image"] for row in captions} == {data.images[row]["id"] for row in pairs}
    assert len(captions) == 2 * len(pairs)
    for which in heads.OLD:
        half = heads.training_rows(data, which, seed=3)
        assert len(half) == 40
        assert set(half) < set(encoder)
        assert list(half) != list(heads.training_rows(data, which, seed=4))
    assert list(heads.training_rows(data, "new", seed=3)) == list(encoder)


def test_a_bag_of_words_is_the_mean_of_its_known_words() -> None:
    torch.manual_seed(0)
    bag = BagOfWords(["a dog", "a cat"], 4, ["a", "cat", "dog"])
    other = bag.reading(["Cat, dog and cat!", "nothing known"])
    rows = bag.table.weight
    expected = torch.stack([(rows[1] + rows[2] + rows[1]) / 3, rows[3]])
    assert torch.allclose(other(torch.tensor([0, 1])), expected)
    assert torch.allclose(bag(torch.tensor([1])), (rows[0] + rows[1])[None] / 2)


def test_other_features_are_standardised_as_the_first_ones_were() -> None:
    torch.manual_seed(0)
    features, others = torch.randn(50, 3) * 2 + 1, torch.randn(4, 3)
    lookup = Lookup(features, nn.Linear(3, 2))
    expected = lookup.head((others - features.mean(0)) / features.std(0))
    assert torch.allclose(lookup.reading(others)(torch.arange(4)), expected, atol=1e-6)
    assert torch.allclose(lookup.through()(others), expected, atol=1e-6)
    assert torch.allclose(lookup.through()(features[7:9]), lookup(torch.tensor([7, 8])), atol=1e-6)


@pytest.mark.parametrize("which", ["words", "sentences", "new"])
def test_saved_towers_embed_as_the_trained_ones(data: Flickr8k, which: str, tmp_path: Path) -> None:
    trained = heads.train(data, which, seed=0, epochs=1)
    restored = heads.untrained(data, which, seed=0)
    Cache(tmp_path).trained("towers", {"which": which}, restored.module(), trained.module)
    again = heads.untrained(data, which, seed=0)
    Cache(tmp_path).trained("towers", {"which": which}, again.module(), _never)
    for made in (restored, again):
        for mine, theirs in zip(made.embed(data), trained.embed(data), strict=True):
            assert mine.space == theirs.space
            assert mine.matrix().tobytes() == theirs.matrix().tobytes()
    own = trained.embed(data)[1]
    texts = trained.embed_texts(own.ids.tolist(), [c["text"] for c in data.captions], data.minilm)
    assert np.allclose(texts.matrix(), own.matrix(), atol=1e-6)


def test_what_is_cached_is_made_once_for_each_key(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((30, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = [f"t{k}" for k in range(30)]
    old, new = (
        Embeddings(ids, v, Space(model=name, dimension=4), "text") for name, v in (("old", vectors), ("new", -vectors))
    )
    cache, fitted = Cache(tmp_path), []

    def fit() -> Adapter:
        fitted.append(Procrustes().fit(pair(old, new)))
        return fitted[-1]

    first = cache.adapter("one's, a", {"seed": 0}, fit)
    second = cache.adapter("one's, a", {"seed": 0}, _never)
    cache.adapter("one's, a", {"seed": 1}, fit)
    assert len(fitted) == 2
    assert first.transform(new).matrix().tobytes() == second.transform(new).matrix().tobytes()
    made = cache.vectors("v", {}, lambda: [old, new])
    kept = cache.vectors("v", {}, _never)
    assert [s.space.model for s in made] == [s.space.model for s in kept] == ["old", "new"]
    assert kept[1].matrix().tobytes() == new.matrix().tobytes()


def test_what_a_stopped_run_leaves_is_no_entry(tmp_path: Path) -> None:
    def stop() -> list[Embeddings]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).vectors("v", {}, stop)
    assert not Cache(tmp_path).place("v/vectors", {}).exists()


def test_comments_and_docstrings_do_not_change_a_digest_of_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def module(name: str, source: str) -> ModuleType:
        (tmp_path / f"{name}.py").write_text(source)
        return __import__(name)

    monkeypatch.syspath_prepend(str(tmp_path))
    plain = code_of(module("digest_a", "def f(x):\n    return x + 1\n"))
    assert code_of(module("digest_b", '"""Text."""\ndef f(x):\n    """More."""\n    return x + 1  # why\n')) == plain
    assert code_of(module("digest_c", "def f(x):\n    return x + 2\n")) != plain


def world(seed: int, *, level: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {"image→text": generator.integers(1, level, 40), "text→image": generator.integers(1, level, 120)}


OWNERS = np.random.default_rng(9).permutation(np.repeat(np.arange(40), 3))


@pytest.mark.parametrize("depth", [1, 10])
def test_the_mean_over_images_is_the_mean_of_both_recalls(depth: int) -> None:
    ranks = world(0, level=30)
    values = per_image(ranks, OWNERS, depth=depth)
    recalls = [np.mean([rank <= depth for rank in found]) for found in ranks.values()]
    assert values.mean() == pytest.approx(np.mean(recalls))
    slow = [
        ((ranks["image→text"][i] <= depth) + (ranks["text→image"][i == OWNERS] <= depth).mean()) / 2 for i in range(40)
    ]
    assert np.allclose(values, slow)


def test_images_with_unequal_numbers_of_captions_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        per_image(world(0, level=30), np.zeros(120, dtype=int), depth=1)


def interval(statistic: Callable[[np.ndarray], float], images: int) -> tuple[float, float]:
    """A bootstrap over images, one resample at a time."""
    generator = np.random.default_rng(5)
    drawn = [statistic(generator.integers(0, images, images)) for _ in range(4000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def test_a_difference_resamples_images_and_averages_over_seeds() -> None:
    first = [per_image(world(k, level=12), OWNERS, depth=5) for k in range(3)]
    second = [per_image(world(k + 10, level=30), OWNERS, depth=5) for k in range(3)]
    found = difference(first, second)
    assert found.value == pytest.approx(np.mean(first) - np.mean(second))
    low, high = interval(
        lambda rows: float(np.mean([a[rows] - b[rows] for a, b in zip(first, second, strict=True)])), 40
    )
    assert found.low == pytest.approx(low, abs=0.01)
    assert found.high == pytest.approx(high, abs=0.01)
    same = difference(first, first)
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_the_share_of_the_gap_is_of_means_over_seeds() -> None:
    old, mapped, new = (
        [per_image(world(k + shift, level=level), OWNERS, depth=5) for k in range(3)]
        for shift, level in ((0, 60), (20, 20), (40, 8))
    )
    found = closed(mapped, old, new)
    assert found is not None
    assert found.value == pytest.approx((np.mean(mapped) - np.mean(old)) / (np.mean(new) - np.mean(old)))

    def share(rows: np.ndarray) -> float:
        o, m, n = (np.mean([v[rows] for v in sets]) for sets in (old, mapped, new))
        return float((m - o) / (n - o))

    low, high = interval(share, 40)
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)
    assert closed(mapped, new, old) is None


def _never() -> list[Embeddings]:
    raise AssertionError("this is cached")
