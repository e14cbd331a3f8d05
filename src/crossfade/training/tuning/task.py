"""The losses of XBT's second stage: the new model is tuned through φ, and the old model is absent (2405.14715).

Needs: φ of stage 1, the new model, image–text pairs. Gives: additions to the new model (LoRA, prompts) and, where asked
for, φ trained on, so that φ of a tuned vector searches the old gallery better than φ of an untuned one. Fails: where φ
does not place untouched vectors well, for it is all that says where the old space is.

Equations, for the pairs (text i, image i) of a batch over all processes, h the new model's normalised features with
additions and h⁰ those without, φ₀ the frozen projection of stage 1::

    t_i = φ(h(text_i)),     v_i = φ(h(image_i))                              (1)
    t⁰_i = φ₀(h⁰(text_i)),  v⁰_i = φ₀(h⁰(image_i))                           (2)
    L_contrastive = ½ [ NCE(t, v) + NCE(v, t) ]                              (3), both sides by the same τ
    L_anchor = mean of NCE(t, v⁰) and NCE(v, t⁰)                             (4)
    L_anchor_cosine = mean of  1 − cos(t_i, v⁰_i)  and  1 − cos(v_i, t⁰_i)   (5)
    L_drift = mean of  1 − cos(t_i, t⁰_i)  and  1 − cos(v_i, v⁰_i)           (6)
    L = Σ weight · term                                                      (7)

NCE(q, k) is InfoNCE over the rows of the batch, gathered over processes with their gradients; rows of the same item
(the same image or text, or linked to the same) are no negatives of one another. A side on which nothing trains has no
part in the means of (4) to (6).

============  =====================================  ===========
symbol        where                                  shape
============  =====================================  ===========
t, v          ``texts``, ``images``                  [n, d_t]
t⁰, v⁰        ``text_anchor``, ``image_anchor``      [n, d_t]
τ             ``XBTTuning.temperature``              ()
============  =====================================  ===========

The paper establishes: the frozen new model, its parameter-efficient tuning on image–text pairs through φ, no old model.
Not specified by it (our choice): all of (3) to (7). (3) makes the tuned model a good one in old coordinates; (4) and (5)
keep its queries near what φ₀ stored, and (6) near themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from crossfade.embeddings import Embeddings
from crossfade.embeddings.ids import item_keys
from crossfade.encoders.towers.tuned import TunedTowers
from crossfade.errors import ConfigError
from crossfade.methods.base import Adapter, Floats
from crossfade.methods.held_out import Trial, ranks
from crossfade.methods.torch_map import torch_map
from crossfade.spaces import MODALITIES, Modality
from crossfade.training.losses import cosine_loss, gather_with_gradient, info_nce
from crossfade.training.task import Batch, Task
from crossfade.training.tuning.config import XBTTuning
from crossfade.training.tuning.samples import Samples

__all__ = ["TuningModule", "TuningTask"]

_THREADS = min(8, os.cpu_count() or 1)  # that decode the images of a batch
_SCORE_BATCH = 64


class TuningModule(nn.Module):
    """Towers and φ: inputs by modality → old-space coordinates by modality.

    Args:
        towers: with what is added to them.
        projection: φ as a module.
        train_projection: whether φ trains.
    """

    def __init__(self, towers: TunedTowers, projection: nn.Module, *, train_projection: bool) -> None:
        super().__init__()
        self.towers = towers
        self.projection = projection.requires_grad_(train_projection)

    def forward(self, inputs: Mapping[Modality, Mapping[str, torch.Tensor]]) -> dict[Modality, torch.Tensor]:
        """t and v: modality → [n, d_t]."""
        return {modality: self._coordinates(modality, given) for modality, given in inputs.items()}

    def gradient_checkpointing_enable(self) -> None:
        """For every tower that is tuned.

        Raises:
            EncoderError: one of them cannot.
        """
        for modality in MODALITIES:
            if self.towers.tuning.touches(modality):
                self.towers.tower(modality).gradient_checkpointing_enable()

    def _coordinates(self, modality: Modality, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        features = nn.functional.normalize(self.towers.features(modality, inputs), dim=-1)
        mapped: torch.Tensor = self.projection(features, modality)  # Eq. (1)
        return mapped


@final
class TuningTask(Task):
    """Stage 2 as the loop sees it: one sample is one pair of a text and an image.

    Args:
        towers: with what is added to them; cached towers where nothing is.
        adapter: φ of stage 1, which is also φ₀.
        samples: the pairs to train on.
        held_out: the pairs to score on; None where there are none.
        untuned: modality → the untouched model's vectors of every item of either.
        config: losses and weights.
    """

    def __init__(
        self,
        towers: TunedTowers,
        adapter: Adapter,
        samples: Samples,
        held_out: Samples | None,
        *,
        untuned: Mapping[Modality, Embeddings],
        config: XBTTuning,
    ) -> None:
        if not adapter.target.normalized and adapter.target.metric != "cosine":
            raise ConfigError(
                f"Tuning compares by angle, and {adapter.target} is compared by {adapter.target.metric} without being "
                "normalised. There is no stage 2 for such a space."
            )
        self.module: TuningModule = TuningModule(towers, torch_map(adapter), train_projection=config.train_projection)
        self.size = len(samples)
        self._towers, self._adapter, self._config = towers, adapter, config
        self._samples, self._untuned = samples, untuned
        self._held_out = None if held_out is None or len(held_out) == 0 else _one_each(held_out, config.score_items)
        self._live = tuple(m for m in MODALITIES if config.train_projection or config.tuning.touches(m))

    def load(self, numbers: npt.NDArray[np.int64]) -> Batch:
        """See :meth:`Task.load`; images are decoded in several threads.

        Raises:
            CorruptItem: an image that could be read when it was encoded cannot be any more.
        """
        text_rows, image_rows = self._samples.links[numbers].T
        anchors = {
            "text_anchor": self._anchors(self._samples, "text", text_rows),
            "image_anchor": self._anchors(self._samples, "image", image_rows),
        }
        return {
            "inputs": {
                "text": self._prepared(self._samples, "text", text_rows),
                "image": self._prepared(self._samples, "image", image_rows),
            },
            **{name: torch.from_numpy(vectors) for name, vectors in anchors.items()},
            "items": torch.from_numpy(self._samples.items[numbers]),
        }

    def losses(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        """See :meth:`Task.losses`: the terms of Eq. (7)."""
        mapped = module(batch["inputs"])
        texts, images = gather_with_gradient(mapped["text"]), gather_with_gradient(mapped["image"])
        text_anchor, image_anchor = (
            gather_with_gradient(batch["text_anchor"]),
            gather_with_gradient(batch["image_anchor"]),
        )
        items, tau, config = gather_with_gradient(batch["items"]), self._config.temperature, self._config
        sides = {"text": (texts, image_anchor, text_anchor), "image": (images, text_anchor, image_anchor)}
        live = [sides[modality] for modality in self._live]
        terms: dict[str, torch.Tensor] = {}
        if config.contrastive:
            both = info_nce(texts, images, temperature=tau, positives=items, symmetric=True)
            terms["contrastive"] = config.contrastive * both  # Eq. (3)
        if config.anchor:
            each = [info_nce(mine, other, temperature=tau, positives=items) for mine, other, _ in live]
            terms["anchor"] = config.anchor * torch.stack(each).mean()  # Eq. (4)
        if config.anchor_cosine:
            each = [cosine_loss(mine, other) for mine, other, _ in live]
            terms["anchor_cosine"] = config.anchor_cosine * torch.stack(each).mean()  # Eq. (5)
        if config.drift:
            each = [cosine_loss(mine, own) for mine, _, own in live]
            terms["drift"] = config.drift * torch.stack(each).mean()  # Eq. (6)
        return terms

    def score(self, module: nn.Module) -> float | None:
        """The mean reciprocal rank of held-out queries, mapped by the tuned model, over four searches: texts among
        φ₀'s images, images among φ₀'s texts, and either among the other as the tuned model maps it.
        """
        if self._held_out is None:
            return None
        pairs, stored, tuned, items = self._held_out, {}, {}, {}
        for modality, column in (("text", 0), ("image", 1)):
            rows, first = np.unique(pairs.links[:, column], return_index=True)
            items[modality] = pairs.items[first]
            stored[modality] = self._anchors(pairs, modality, rows)  # type: ignore[arg-type]
            tuned[modality] = self._mapped(module, pairs, modality, rows)  # type: ignore[arg-type]
        reciprocal = [
            1.0 / ranks(self._trial(query, other, gallery[other], items), tuned[query])
            for query, other in (("text", "image"), ("image", "text"))
            for gallery in (stored, tuned)
        ]
        return float(np.mean([one.mean() for one in reciprocal]))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """See :meth:`Task.parameter_groups`; φ has a learning rate of its own."""
        added = [parameter for parameter in self._towers.parameters() if parameter.requires_grad]
        groups: list[dict[str, Any]] = [{"params": added}] if added else []
        if self._config.train_projection:
            rate = self._config.projection_learning_rate
            groups.append({"params": list(self.module.projection.parameters()), "lr": rate})
        return groups

    def _trial(self, query: str, other: str, gallery: Floats, items: Mapping[str, npt.NDArray[np.int64]]) -> Trial:
        return Trial(
            name=f"{query}→{other}",
            query="text" if query == "text" else "image",
            cross_modal=True,
            source=gallery,
            target=gallery,
            gallery=gallery,
            query_items=items[query],
            gallery_items=items[other],
            metric="cosine",
        )

    def _anchors(self, samples: Samples, modality: Modality, rows: npt.NDArray[np.int64]) -> Floats:
        """t⁰ or v⁰: [n, d_t]."""
        listed = samples.texts if modality == "text" else samples.images
        vectors = self._untuned[modality]
        places = vectors.locate([listed[row].id for row in rows.tolist()])
        return self._adapter.map(vectors.rows.take(places), modality)  # Eq. (2)

    def _prepared(self, samples: Samples, modality: Modality, rows: npt.NDArray[np.int64]) -> Mapping[str, Any]:
        tower = self._towers.tower(modality)
        listed = samples.texts if modality == "text" else samples.images
        chosen = [listed[row] for row in rows.tolist()]
        if modality == "text" or tower.model is None:
            return tower.prepare([tower.content(item) for item in chosen])
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="crossfade-decode") as pool:
            return tower.prepare(list(pool.map(tower.content, chosen)))

    def _mapped(self, module: nn.Module, samples: Samples, modality: Modality, rows: npt.NDArray[np.int64]) -> Floats:
        device = next(self.module.parameters()).device
        blocks = []
        for part in _slices(len(rows)):
            inputs = self._prepared(samples, modality, rows[part])
            moved = {name: t.to(device) if isinstance(t, torch.Tensor) else t for name, t in inputs.items()}
            blocks.append(module({modality: moved})[modality].float().cpu().numpy())
        return np.concatenate(blocks)


def _one_each(samples: Samples, count: int) -> Samples:
    """One pair of each of at most ``count`` items; which, depends on the images' ids alone."""
    names = np.asarray([samples.images[row].id for row in samples.links[:, 1].tolist()], dtype=np.str_)
    order = np.argsort(item_keys(names, salt="xbt-tuning/score"), kind="stable")
    _, first = np.unique(samples.items[order], return_index=True)
    return samples.only(np.sort(order[np.sort(first)[:count]]))


def _slices(count: int) -> Iterator[slice]:
    for start in range(0, count, _SCORE_BATCH):
        yield slice(start, start + _SCORE_BATCH)
