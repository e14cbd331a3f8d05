"""The glyphs as arrays, and the distortions that stand in for typefaces nobody has drawn.

Everything fits in memory: about 41,000 training rasters of 40 x 40 bytes. A batch is characters, not images: each character
comes once, in two different seen typefaces where it has them, so that no two captions of a batch are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from crossfade.datasets.glyphs import Glyphs, Split

MEAN, STD = 0.75, 0.37  # of the training rasters, in [0, 1]


@dataclass(frozen=True)
class Rasters:
    """One split in memory.

    Attributes:
        pixels: [images, size, size], uint8, white is 255.
        character: [images], the row of ``names`` that each image shows.
        names: the captions, one a character.
    """

    pixels: Tensor
    character: Tensor
    names: Sequence[str]

    @classmethod
    def of(cls, split: Split, *, share: float = 1.0, size: int, seed: int) -> Rasters:
        """Render a split; the share keeps that part of the training characters."""
        glyphs = Glyphs(split, share=share, size=size, seed=seed)
        row = {text.id: i for i, text in enumerate(glyphs.texts())}
        row_of_image = {link.image: row[link.text] for link in glyphs.links()}
        images = list(glyphs.images())
        pixels = np.stack([np.asarray(image.load())[..., 0] for image in images])
        return cls(
            torch.from_numpy(pixels),
            torch.tensor([row_of_image[image.id] for image in images]),
            [text.text for text in glyphs.texts()],
        )


class Batches:
    """Endless batches of characters without replacement within an epoch, each in ``views`` typefaces."""

    def __init__(self, rasters: Rasters, *, characters: int, views: int, generator: torch.Generator) -> None:
        self._rasters = rasters
        self._characters = min(characters, len(rasters.names))
        self._views = views
        self._generator = generator
        self._count = torch.bincount(rasters.character, minlength=len(rasters.names))
        self._first = torch.cumsum(self._count, 0) - self._count  # images stand in the order of their characters
        self._left = torch.empty(0, dtype=torch.long)

    def next(self) -> tuple[Tensor, Tensor]:
        """The characters [c] of a batch and its rasters [views * c, size, size], view after view."""
        if len(self._left) < self._characters:
            self._left = torch.randperm(len(self._rasters.names), generator=self._generator)
        chosen, self._left = self._left[: self._characters], self._left[self._characters :]
        start = torch.rand(self._characters, generator=self._generator)
        faces = [
            self._first[chosen] + ((start + view / self._views) % 1 * self._count[chosen]).long()
            for view in range(self._views)
        ]
        return chosen, self._rasters.pixels[torch.cat(faces)]


def as_pixel_values(pixels: Tensor) -> Tensor:
    """Rasters [n, s, s] in uint8, or in [0, 1], as the models want them: [n, 3, s, s], normalised."""
    unit = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return ((unit - MEAN) / STD).unsqueeze(1).expand(-1, 3, -1, -1)


def distort(pixels: Tensor, *, strength: float, generator: torch.Generator) -> Tensor:
    """Shift, scale, stretch, turn, slant, warp, embolden or thin, and blur each raster at random.

    Args:
        pixels: [n, s, s], uint8, white is 255.
        strength: 0 leaves them as they are, 1 is the full range.
        generator: of the randomness.

    Returns:
        Rasters [n, s, s] in [0, 1].
    """
    n = len(pixels)

    def spread(*shape: int, by: float) -> Tensor:
        return (torch.rand(n, *shape, generator=generator) * 2 - 1) * by * strength

    ink = 1 - pixels.float().unsqueeze(1) / 255
    ink = _reweigh(ink, generator=generator, strength=strength)
    angle, slant, scale, stretch = spread(by=0.09), spread(by=0.22), 1 + spread(by=0.08), 1 + spread(by=0.12)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([cosine, -sine, sine, cosine], 1).view(n, 2, 2)
    shape = torch.stack([stretch, slant, torch.zeros(n), 1 / stretch], 1).view(n, 2, 2)
    affine = torch.cat([scale.view(n, 1, 1) * turn @ shape, spread(2, 1, by=0.06)], 2)
    grid = F.affine_grid(affine, list(ink.shape), align_corners=False)
    warp = F.interpolate(spread(2, 5, 5, by=0.08), size=ink.shape[-2:], mode="bicubic", align_corners=True)
    moved = F.grid_sample(ink, grid + warp.permute(0, 2, 3, 1), align_corners=False)
    return 1 - moved.squeeze(1).clamp(0, 1)


def _reweigh(ink: Tensor, *, generator: torch.Generator, strength: float) -> Tensor:
    """A third of the glyphs bolder, a third thinner, a third blurred, each by a random amount; ink is [n, 1, s, s]."""
    kind = torch.randint(3, (len(ink), 1, 1, 1), generator=generator)
    amount = torch.rand(len(ink), 1, 1, 1, generator=generator) * strength
    bolder = F.max_pool2d(ink, 3, stride=1, padding=1)
    blurred = F.avg_pool2d(ink, 3, stride=1, padding=1)
    thinner = torch.maximum(-F.max_pool2d(-ink, 3, stride=1, padding=1), 0.6 * blurred)
    other = torch.where(kind == 0, bolder, torch.where(kind == 1, thinner, blurred))
    return torch.lerp(ink, other, amount)
