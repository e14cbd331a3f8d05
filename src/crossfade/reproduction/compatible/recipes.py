"""The recipes: the papers' trainings, and the same protocol at a size that two cores can bear.

Four trainings, in this order; the first knows half of the classes, the others know all:

===============  ====================================  =====================================================
training         method                                learns from
===============  ====================================  =====================================================
``old``          independent, on the first half        labels
``independent``  independent                           labels
``bct``          BCT, as the papers' baseline          labels, the old vectors' class means
``bt2``          BT²                                   labels, old vectors, independent vectors
or ``oca``       OCA                                   labels, the old vectors' class means
===============  ====================================  =====================================================

Full scale, from the authors' published configurations: ResNet-50 with 128 components, k = 32, 224 pixels, Adam at 1e-3,
cosine to zero over 100 epochs; CIFAR-100 with weight decay 2⁻¹⁵, 5 epochs of warm-up, a batch of 128 (OCA: 64), enlarged
from 32 pixels and mirrored; ImageNet with none, 20 epochs, a batch of 256, crops of Inception. Old and independent
models have label smoothing 0.1.

Deviations: BCT has no label smoothing, which the authors' configuration of it names.

Not published (our choice): OCA's recipe for ImageNet, which is BT²'s; everything at the scale ``small``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, final

import torch

from crossfade.backbones.images import ImageFormat
from crossfade.compatible.augmentation import Augmentation
from crossfade.compatible.base import CompatibleMethod
from crossfade.compatible.bct import BCT
from crossfade.compatible.bt2 import BT2
from crossfade.compatible.config import AUTHORS, CompatibleConfig
from crossfade.compatible.independent import Independent
from crossfade.compatible.network import NetworkConfig
from crossfade.compatible.oca import OCA
from crossfade.datasets import Dataset
from crossfade.encoders.torch_runtime import TorchRuntime
from crossfade.errors import ConfigError
from crossfade.reproduction.compatible.sources import SOURCES, Part, Split
from crossfade.reproduction.requirements import Scale
from crossfade.training.config import TrainingConfig

__all__ = ["RECIPES", "UNCHANGED", "Changes", "Precision", "Recipe", "Training", "recipe_of"]

Precision = Literal["float32", "bfloat16", "float16"]

RECIPES: Mapping[str, tuple[str, str]] = {
    f"{method}-{images}": (method, images) for method in ("bt2", "oca") for images in ("cifar100", "imagenet")
}
"""The name of a recipe → its method and its images."""

DIMENSION = 128
"""Of every model's own representation (the authors' configurations)."""

SMOOTHING = 0.1
"""Label smoothing of the old and the independent model (the authors' configurations)."""

SMALL_CLASSES = 100


@dataclass(frozen=True)
class Small:
    """The scale ``small``, a ResNet-18 at 32 pixels in batches of 64 (our choice).

    Attributes:
        width: of the network's first stage; 64 is its full width.
        each: training images of a class, at most.
        epochs: by what is trained on.
    """

    width: int
    each: int
    epochs: Mapping[str, int]


SMALL_ON_CPU = Small(32, 100, {"glyphs": 40, "cifar100": 6, "imagenet": 6})
"""A step of width 32 took 0.26 s on two cores of a Xeon, and BT²'s four trainings on glyphs 10 minutes."""

SMALL_ON_GPU = Small(64, 500, {"glyphs": 40, "cifar100": 30, "imagenet": 30})


@dataclass(frozen=True)
class Changes:
    """What departs from a recipe; None leaves it.

    Attributes:
        epochs: of each training.
        classes: the first so many; the old model knows half of them.
        width: of the network's first stage.
        precision: number format of the forward pass in training; by default float32.
    """

    epochs: int | None = None
    classes: int | None = None
    width: int | None = None
    precision: Precision | None = None

    @property
    def named(self) -> dict[str, int | str]:
        """Those that are made."""
        return {name: value for name, value in asdict(self).items() if value is not None}


UNCHANGED = Changes()


@final
@dataclass(frozen=True)
class Training:
    """One of the four.

    Attributes:
        name: ``old``, ``independent``, ``bct``, ``bt2`` or ``oca``.
        method: with its hyper-parameters.
        config: network, course and classes.
    """

    name: str
    method: CompatibleMethod
    config: CompatibleConfig


@final
@dataclass(frozen=True)
class Recipe:
    """A protocol at one scale.

    Attributes:
        name: a key of :data:`RECIPES`.
        scale: ``full`` or ``small``.
        images: a key of :data:`~crossfade.reproduction.compatible.sources.SOURCES`.
        classes: of the new models; the old one knows half.
        each: training images of a class, at most; None for all.
        config: what all trainings share.
        changes: what the user changed.
    """

    name: str
    scale: Scale
    images: str
    classes: int
    each: int | None
    config: CompatibleConfig
    changes: Changes

    @property
    def method(self) -> str:
        """``bt2`` or ``oca``."""
        return RECIPES[self.name][0]

    @property
    def trainings(self) -> tuple[Training, ...]:
        """In the order in which they are made."""
        alone = Independent(smoothing=SMOOTHING)
        return (
            Training("old", alone, replace(self.config, class_share=0.5)),
            Training("independent", alone, self.config),
            Training("bct", BCT(), self.config),
            Training(self.method, BT2() if self.method == "bt2" else OCA(), self.config),
        )

    def open(self, data: Path, split: Split) -> Dataset:
        """The images of a split.

        Raises:
            DatasetError: they are missing or damaged.
            ConfigError: there are not so many classes.
        """
        whole = SOURCES[self.images].open(data, split, classes=self.classes)
        return whole if self.each is None or split == "test" else Part(whole, self.classes, self.each)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        trainings = {one.name: {"method": one.method.name, **one.method.config()} for one in self.trainings}
        return {
            **{name: getattr(self, name) for name in ("name", "scale", "images", "classes", "each")},
            "config": self.config.to_dict(),
            "trainings": trainings,
        }


def recipe_of(
    name: str, *, scale: Scale = "full", data: Path = Path(), device: str = "auto", changes: Changes = UNCHANGED
) -> Recipe:
    """The recipe of a protocol.

    Args:
        name: a key of :data:`RECIPES`.
        scale: ``small`` takes the protocol's images where they are below ``data``, and printed characters elsewhere.
        data: the folder of data sets.
        device: that is to train: ``small`` is smaller on a CPU.
        changes: what departs from it.

    Raises:
        ConfigError: no such recipe, or an impossible change.
        EncoderError: there is no such device.
    """
    if name not in RECIPES:
        raise ConfigError(f"A recipe is one of {', '.join(RECIPES)}; found {name!r}.")
    method, images = RECIPES[name]
    if scale == "small" and not SOURCES[images].stands(data):
        images = "glyphs"
    source = SOURCES[images]
    classes = changes.classes or (source.classes if scale == "full" else min(source.classes, SMALL_CLASSES))
    if classes < 2 or (images != "glyphs" and classes > source.classes):
        raise ConfigError(f"{images} has {source.classes} classes, of which 2 or more are taken; found {classes}.")
    small = None if scale == "full" else SMALL_ON_CPU if _is_cpu(device) else SMALL_ON_GPU
    config = _full(method, images) if small is None else _small(small, images)
    course = replace(
        config.training,
        epochs=changes.epochs or config.training.epochs,
        precision=changes.precision or config.training.precision,
    )
    options = config.network.options if changes.width is None else {"width": changes.width}
    config = replace(config, training=course, network=replace(config.network, options=options))
    return Recipe(name, scale, images, classes, None if small is None else small.each, config, changes)


def _full(method: str, images: str) -> CompatibleConfig:
    network = NetworkConfig("resnet50", {}, DIMENSION, ImageFormat(size=224))
    course: TrainingConfig = replace(AUTHORS, checkpoint_every=1_000)
    if images == "imagenet":
        course = replace(course, batch=256, weight_decay=0.0, warmup=0.2)
        return CompatibleConfig(network, course, "imagenet", stored=256)
    course = replace(course, batch=128 if method == "bt2" else 64)
    return CompatibleConfig(network, course, Augmentation(crop="off"), stored=32)


def _small(small: Small, images: str) -> CompatibleConfig:
    network = NetworkConfig("resnet18", {"width": small.width}, DIMENSION, ImageFormat(size=32))
    course = replace(AUTHORS, epochs=small.epochs[images], batch=64, checkpoint_every=250)
    return CompatibleConfig(network, course, "glyphs" if images == "glyphs" else "cifar", stored=32)


def _is_cpu(device: str) -> bool:
    return bool(TorchRuntime(device).place(torch.nn.Identity())[1].type == "cpu")
