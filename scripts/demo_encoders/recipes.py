"""The two demo encoders, each as one frozen recipe."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RECIPES", "Recipe", "Shape"]


@dataclass(frozen=True)
class Shape:
    """The size of a dual encoder: images and patches in pixels, widths in components, context in tokens."""

    dimension: int
    image_width: int
    image_layers: int
    image_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    vocabulary: int
    image_size: int = 40
    patch_size: int = 8
    context: int = 64


@dataclass(frozen=True)
class Recipe:
    """All that decides a demo encoder, but for the versions of the libraries.

    Attributes:
        shape: of the two towers.
        share: of the training images that it sees.
        steps: optimiser steps.
        decay: of those, the last ones, over which the learning rate falls to 0.
        warm_up: of those, the first ones, over which it rises.
        characters: in a batch.
        views: typefaces in which each character of a batch is shown.
        neighbours_from: the step from which half of a batch is made of characters that look alike.
        muon_rate: learning rate of the matrices inside the layers (Muon).
        adam_rate: learning rate of everything else (AdamW).
        weight_decay: of Muon.
        distortion: strength of the image distortions, from 0 to 1.
        class_scale: inverse temperature of the classification loss, which is there in training only.
        class_weight: weight of that loss beside the contrastive one.
        split_seed: of the data splits.
        seed: of initialisation, batches and distortions.
    """

    shape: Shape
    share: float
    steps: int
    decay: int
    characters: int
    views: int = 2
    warm_up: int = 30
    neighbours_from: int = 400
    muon_rate: float = 2e-3
    adam_rate: float = 1e-3
    weight_decay: float = 0.05
    distortion: float = 0.6
    class_scale: float = 16.0
    class_weight: float = 1.0
    split_seed: int = 0
    seed: int = 0


RECIPES = {
    "old": Recipe(
        Shape(
            dimension=64,
            image_width=96,
            image_layers=3,
            image_heads=3,
            text_width=64,
            text_layers=2,
            text_heads=2,
            vocabulary=1024,
        ),
        share=0.2,
        steps=330,
        decay=130,
        characters=128,
    ),
    "new": Recipe(
        Shape(
            dimension=128,
            image_width=192,
            image_layers=6,
            image_heads=6,
            text_width=128,
            text_layers=4,
            text_heads=4,
            vocabulary=2048,
        ),
        share=1.0,
        steps=1300,
        decay=400,
        characters=192,
    ),
}
