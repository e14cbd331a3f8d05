"""The training loop: a contrastive loss between the towers, and a classification loss that helps the image tower along.

::

    i_n   unit image vectors      t_c   unit text vectors      h_n   the image tower's pooled state, before projection
    L_image = -mean_n log softmax_c(s i_n . t_c)[c(n)]
    L_text  = -mean_c log sum over n with c(n) = c of softmax_n(s t_c . i_n)
    L_class = -mean_n log softmax over all characters k of (class_scale cos(h_n, w_k))[c(n)]
    L       = L_image + L_text + class_weight L_class

The classes w_k are thrown away after training. They also say which characters look alike, for batches that are hard.
Every step draws its batch from a generator of its own, so that a run that is resumed equals one that was not stopped.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPModel, CLIPTokenizer

from demo_encoders.data import Rasters, as_pixel_values, distort, draw_batch, look_alikes
from demo_encoders.models import build, train_tokenizer
from demo_encoders.recipes import Recipe

__all__ = ["Trained", "train"]

_EVERY = 50  # steps between two checkpoints, and between two looks at what looks alike
_LOOK_ALIKES = 12
_LARGEST_SCALE = 50.0  # of the contrastive loss
_CLIP = 1.0  # largest norm of the gradient


@dataclass(frozen=True)
class Trained:
    """A trained model, its tokenizer, and the seconds that training took."""

    model: CLIPModel
    tokenizer: CLIPTokenizer
    seconds: float


def train(recipe: Recipe, *, checkpoint: Path | None) -> Trained:
    """Train an encoder by its recipe; go on from the checkpoint file where there is one."""
    rasters = Rasters.of("train", share=recipe.share, size=recipe.shape.image_size, seed=recipe.split_seed)
    tokenizer = train_tokenizer(rasters.names, vocabulary=recipe.shape.vocabulary, context=recipe.shape.context)
    model = build(recipe.shape, tokenizer, seed=recipe.seed)
    model.set_attn_implementation("eager")  # on a CPU, the fused attention is slow backwards
    classes = nn.Parameter(torch.randn(len(rasters.names), recipe.shape.image_width) * 0.02)
    optimizers = _optimizers(model, classes, recipe)
    encoded = tokenizer(list(rasters.names), padding=True, return_tensors="pt")
    tokens, mask = encoded["input_ids"], encoded["attention_mask"]
    print(f"{len(rasters.pixels):,} images of {len(rasters.names):,} characters, {model.num_parameters():,} parameters")

    first, seconds, alike = 0, 0.0, None
    if checkpoint is not None and checkpoint.exists():
        first, seconds = _restore(checkpoint, model, classes, optimizers)
    started = time.monotonic()
    for step in range(first, recipe.steps):
        if step % _EVERY == 0 and step >= recipe.neighbours_from:
            alike = look_alikes(classes.detach(), count=_LOOK_ALIKES)
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + step)
        characters, pixels = draw_batch(
            rasters, characters=recipe.characters, views=recipe.views, alike=alike, generator=generator
        )
        images = as_pixel_values(distort(pixels, strength=recipe.distortion, generator=generator))
        with torch.autocast("cpu", torch.bfloat16):
            state = model.vision_model(pixel_values=images).pooler_output
            image = model.visual_projection(state)
            longest = int(mask[characters].sum(1).max())
            words = {"input_ids": tokens[characters, :longest], "attention_mask": mask[characters, :longest]}
            text = model.text_projection(model.text_model(**words).pooler_output)
        scale = model.logit_scale.exp().clamp(max=_LARGEST_SCALE)
        l_image, l_text = _contrastive(image, text, scale, views=recipe.views)
        l_class = _classification(state, classes, characters.repeat(recipe.views), scale=recipe.class_scale)
        (l_image + l_text + recipe.class_weight * l_class).backward()
        nn.utils.clip_grad_norm_(model.parameters(), _CLIP)
        _take(optimizers, pace=_pace(step, recipe))
        if (step + 1) % _EVERY == 0 or step + 1 == recipe.steps:
            spent = seconds + time.monotonic() - started
            print(
                f"step {step + 1}/{recipe.steps}, {spent:.0f} s, image {l_image:.3f}, text {l_text:.3f}, "
                f"class {l_class:.3f}, scale {scale:.1f}",
                flush=True,
            )
            if checkpoint is not None:
                _keep(checkpoint, step + 1, spent, model, classes, optimizers)
    model.eval()
    return Trained(model, tokenizer, seconds + time.monotonic() - started)


def _contrastive(image: Tensor, text: Tensor, scale: Tensor, *, views: int) -> tuple[Tensor, Tensor]:
    """L_image and L_text of images [views * c, d] and texts [c, d]."""
    logits = scale * functional.normalize(image.float(), dim=-1) @ functional.normalize(text.float(), dim=-1).T
    own = torch.arange(len(text)).repeat(views)
    of_text = logits.log_softmax(0).view(views, len(text), len(text)).diagonal(dim1=1, dim2=2)
    return functional.cross_entropy(logits, own), -of_text.logsumexp(0).mean()


def _classification(state: Tensor, classes: Tensor, character: Tensor, *, scale: float) -> Tensor:
    """L_class of pooled states [n, w] against all classes [characters, w]."""
    cosine = functional.normalize(state.float(), dim=-1) @ functional.normalize(classes, dim=-1).T
    return functional.cross_entropy(scale * cosine, character)


def _pace(step: int, recipe: Recipe) -> float:
    """The learning rate at a step, as a share of the full one: up, level, and down to 0."""
    return min(1.0, (step + 1) / recipe.warm_up, (recipe.steps - step) / recipe.decay)


def _optimizers(model: CLIPModel, classes: nn.Parameter, recipe: Recipe) -> list[torch.optim.Optimizer]:
    inner = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    ids = {id(p) for p in inner}
    others = [p for p in model.parameters() if id(p) not in ids]
    model.logit_scale.data.fill_(math.log(1 / 0.07))  # CLIP's start
    return [
        torch.optim.Muon(inner, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW([*others, classes], lr=recipe.adam_rate, weight_decay=0.01, betas=(0.9, 0.98)),
    ]


def _take(optimizers: list[torch.optim.Optimizer], *, pace: float) -> None:
    """One step of each optimiser at a share of its learning rate."""
    for optimizer in optimizers:
        full = optimizer.defaults["lr"]
        for group in optimizer.param_groups:
            group["lr"] = full * pace
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _keep(
    path: Path,
    step: int,
    seconds: float,
    model: CLIPModel,
    classes: nn.Parameter,
    optimizers: list[torch.optim.Optimizer],
) -> None:
    state = {
        "step": step,
        "seconds": seconds,
        "model": model.state_dict(),
        "classes": classes.detach(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }
    unfinished = path.with_suffix(".unfinished")
    torch.save(state, unfinished)
    unfinished.replace(path)


def _restore(
    path: Path, model: CLIPModel, classes: nn.Parameter, optimizers: list[torch.optim.Optimizer]
) -> tuple[int, float]:
    """Load a checkpoint; its step and the seconds spent until then."""
    state = torch.load(path, weights_only=True)
    model.load_state_dict(state["model"])
    classes.data.copy_(state["classes"])
    for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(kept)
    return int(state["step"]), float(state["seconds"])
