"""What is upgraded to what: the settings, the rows of each, and the parts that a run is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from benchmarks.compatible_training.images import GLYPHS, NATURAL
from crossfade.backbones import ImageFormat
from crossfade.compatible.network import NetworkConfig

__all__ = [
    "BCT",
    "BT2",
    "CHOSEN",
    "INDEPENDENT",
    "LENGTHS",
    "OCA",
    "PARTS",
    "POST_HOC",
    "RECIPES",
    "SEQUENCE",
    "SETTINGS",
    "WEIGHTS",
    "Part",
    "Plan",
    "Recipe",
    "Setting",
    "smaller",
    "varied",
]

INDEPENDENT, BCT, BT2, OCA = "independent", "BCT", "BT²", "OCA"
FACTORS = (("0", 0.0), ("¼", 0.25), ("4", 4.0))
"""What a weight is multiplied by; 0 only where the influence loss still ties the models."""
LENGTHS = (8, 16, 30)
LEARNING_RATE, TRANSFORMERS_RATE, ALEXNETS_RATE = 3e-3, 1e-3, 3e-4
"""Our choice for few epochs, by the training loss of the independent ResNet-8; for transformers BT²'s own rate; for AlexNet,
which has no batch norm and learns nothing at the first, the best of three on held-out images."""
DIMENSION = 64


@dataclass(frozen=True)
class Recipe:
    """A method with its hyper-parameters.

    Attributes:
        name: of the row.
        method: of :data:`crossfade.compatible.COMPATIBLE`.
        options: other than the defaults.
    """

    name: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(INDEPENDENT, "independent"),
        Recipe(BCT, "bct"),
        Recipe(OCA, "oca"),
        Recipe(BT2, "bt2"),
        Recipe("LCE", "lce"),
    )
}
"""Trained on labelled images, each with its own defaults."""

POST_HOC = {"Procrustes": "procrustes", "ridge": "ridge", "λ-orthogonal": "lambda_orthogonal"}
"""Row → method of :data:`crossfade.methods.METHODS`, fitted on the independent new model's vectors."""

WEIGHTS = {
    BCT: {"influence": 10.0},
    OCA: {"influence": 10.0, "alignment": 5.0},
    BT2: {"influence": 10.0, "old_alignment": 5.0, "new_alignment": 1.0},
}
"""Row → weight → its default; the weights of what ties the new model to another one."""


def varied() -> Iterator[Recipe]:
    """Each weight in turn at a quarter and four times its default, and at 0 where the influence loss remains."""
    for row, weights in WEIGHTS.items():
        for weight, default in weights.items():
            for written, factor in FACTORS[weight == "influence" :]:
                name = f"{row}, {weight} × {written}"
                yield Recipe(name, RECIPES[row].method, {weight: factor * default})


@dataclass(frozen=True)
class Plan:
    """A model that is trained.

    Attributes:
        network: backbone and dimension.
        classes: the share of the classes it sees, the first ones.
        images: the share of each class's images it sees.
        learning_rate: of its course.
    """

    network: NetworkConfig
    classes: float = 1.0
    images: float = 1.0
    learning_rate: float = LEARNING_RATE


@dataclass(frozen=True)
class Setting:
    """An upgrade.

    Attributes:
        new: the new model.
        old: the old one; None: an image's old vector is that of its class's name.
    """

    new: Plan
    old: Plan | None


def _network(backbone: str, *, dimension: int | None = None, **options: Any) -> NetworkConfig:
    return NetworkConfig(backbone, options, dimension, ImageFormat(size=32))


RESNET = _network("resnet8", width=16)
VIT = Plan(_network("vit_tiny", dimension=DIMENSION, patch=8, depth=4), learning_rate=TRANSFORMERS_RATE)
TEXT_DIMENSION = 384

SETTINGS = {
    "classes": Setting(Plan(RESNET), Plan(RESNET, classes=0.5)),
    "more-data": Setting(Plan(RESNET), Plan(RESNET, images=0.3)),
    "architecture": Setting(VIT, Plan(RESNET, classes=0.5)),
    "modality": Setting(Plan(replace(RESNET, dimension=TEXT_DIMENSION)), None),
}
"""The settings of the BT² paper, at a size that two processor cores can train."""

SEQUENCE = (
    ("alexnet", Plan(_network("alexnet", dimension=DIMENSION, hidden=256), classes=0.4, learning_rate=ALEXNETS_RATE)),
    ("vgg11", Plan(_network("vgg11", dimension=DIMENSION, width=16), classes=0.6)),
    ("resnet8", Plan(replace(RESNET, dimension=DIMENSION), classes=0.8)),
    ("vit_tiny", VIT),
)
"""Name → model, the oldest first; each is trained against its predecessor."""


def smaller(plan: Plan) -> Plan:
    """The same for a quick look; nothing it gives means anything."""
    network = plan.network
    if network.backbone.startswith("resnet"):
        network = replace(network, options={"width": 8}, dimension=network.dimension)
    return replace(plan, network=network)


@dataclass(frozen=True)
class Part:
    """What ``--only`` names.

    Attributes:
        setting: of :data:`SETTINGS`; empty for the sequence.
        data: data sets.
        rows: of :data:`RECIPES` and :data:`POST_HOC`, or those of :func:`varied`.
        lengths: epochs; empty: the command line's.
        tuning: whether a part of the training images stands for the test images, to choose by.
        main: whether it has bars, the rows of :data:`CHOSEN` and every seed; the others have ``--side-seeds``.
    """

    setting: str
    data: tuple[str, ...]
    rows: tuple[str, ...]
    lengths: tuple[int, ...] = ()
    tuning: bool = False
    main: bool = False


CHOSEN = {NATURAL: (f"{OCA}, influence × 4",), GLYPHS: (f"{OCA}, alignment × 4", f"{BT2}, influence × ¼")}
"""Data set → rows of :func:`varied`: of each method whose own weights miss a bar there, the setting with the largest *cross* in
the part ``weights``, which looks at training images that were held out."""

EVERY = (*RECIPES, *POST_HOC)
FEW = (INDEPENDENT, BCT, OCA, BT2)
VARIED = (*FEW, *(recipe.name for recipe in varied()))

PARTS = {
    "classes": Part("classes", (NATURAL, GLYPHS), EVERY, main=True),
    "more-data": Part("more-data", (NATURAL,), (*FEW, *POST_HOC)),
    "architecture": Part("architecture", (GLYPHS,), (*FEW, *POST_HOC)),
    "modality": Part("modality", (NATURAL,), (*FEW, *POST_HOC)),
    "sequence": Part("", (NATURAL,), (OCA, BT2)),
    "length": Part("classes", (NATURAL, GLYPHS), FEW, lengths=LENGTHS),
    "weights": Part("classes", (NATURAL, GLYPHS), VARIED, lengths=LENGTHS[:1], tuning=True),
}
