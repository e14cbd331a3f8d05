"""The glyphs as arrays, batches of them, and the distortions that stand in for typefaces nobody has drawn.

Everything fits in memory: about 41,000 training rasters of 40 x 40 bytes. A batch is characters, not images: each
character comes once, in several seen typefaces where it has them, so that no two captions of a batch are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from crossfade.datasets.glyphs import Glyphs, Split

__all__ = ["MEAN", "STD", "Rasters", "as_pixel_values", "distort", "draw_batch", "look_alikes"]

MEAN, STD = 0.75, 0.37  # of the training rasters, in [0, 1]


@dataclass(frozen=True)
class Rasters:
    """One split in memory.

    Attributes:
        pixels: [images, size, size], uint8, white is 255; in the order of their characters.
        character: [images], the row of ``names`` that each image shows.
        names: the captions, one a character.
    """

    pixels: Tensor
    character: Tensor
    names: Sequence[str]

    @classmethod
    def of(cls, split: Split, *, share: float = 1.0, size: int, seed: int) -> Rasters:
        """Render a split; the share keeps that part of the training images."""
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


def draw_batch(
    rasters: Rasters, *, characters: int, views: int, alike: Tensor | None, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Characters without repetition and their images, a batch.

    Args:
        rasters: what to draw from.
        characters: how many; a few fewer where look-alikes coincide.
        views: how many images of each, in different typefaces as far as it has them.
        alike: [all characters, k], the rows that look most like each; half of the batch is then made of groups of four.
        generator: of the draw.

    Returns:
        The characters [c] and their rasters [views * c, size, size], view after view.
    """
    chosen = torch.randperm(len(rasters.names), generator=generator)[:characters]
    if alike is not None:
        seeds = chosen[: characters // 8]
        which = torch.rand(len(seeds), alike.shape[1], generator=generator).argsort(1)[:, :3]
        near = alike[seeds].gather(1, which).flatten()
        chosen = torch.cat([chosen[: characters - len(near)], near]).unique()
    count = torch.bincount(rasters.character, minlength=len(rasters.names))
    first = torch.cumsum(count, 0) - count
    start = torch.rand(len(chosen), generator=generator)
    rows = [first[chosen] + ((start + view / views) % 1 * count[chosen]).long() for view in range(views)]
    return chosen, rasters.pixels[torch.cat(rows)]


def look_alikes(vectors: Tensor, *, count: int) -> Tensor:
    """The rows nearest to each of the vectors [n, d] by cosine, without itself: [n, count]."""
    unit = functional.normalize(vectors, dim=-1)
    similarity = unit @ unit.T
    similarity.fill_diagonal_(-1)
    return similarity.topk(min(count, len(vectors) - 1)).indices


def as_pixel_values(pixels: Tensor) -> Tensor:
    """Rasters [n, s, s] in uint8, or in [0, 1], as the models want them: [n, 3, s, s], normalised."""
    unit = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
    return ((unit - MEAN) / STD).unsqueeze(1).expand(-1, 3, -1, -1)


def distort(pixels: Tensor, *, strength: float, generator: Generator) -> Tensor:
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

    ink = _reweigh(1 - pixels.float().unsqueeze(1) / 255, strength=strength, generator=generator)
    angle, slant, scale, stretch = spread(by=0.09), spread(by=0.22), 1 + spread(by=0.08), 1 + spread(by=0.12)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([cosine, -sine, sine, cosine], 1).view(n, 2, 2)
    shape = torch.stack([stretch, slant, torch.zeros(n), 1 / stretch], 1).view(n, 2, 2)
    affine = torch.cat([scale.view(n, 1, 1) * turn @ shape, spread(2, 1, by=0.06)], 2)
    grid = functional.affine_grid(affine, list(ink.shape), align_corners=False)
    warp = functional.interpolate(spread(2, 5, 5, by=0.08), size=ink.shape[-2:], mode="bicubic", align_corners=True)
    moved = functional.grid_sample(ink, grid + warp.permute(0, 2, 3, 1), align_corners=False)
    return 1 - moved.squeeze(1).clamp(0, 1)


def _reweigh(ink: Tensor, *, strength: float, generator: Generator) -> Tensor:
    """A third of the glyphs bolder, a third thinner, a third blurred, each by a random amount; ink is [n, 1, s, s]."""
    kind = torch.randint(3, (len(ink), 1, 1, 1), generator=generator)
    amount = torch.rand(len(ink), 1, 1, 1, generator=generator) * strength
    bolder = functional.max_pool2d(ink, 3, stride=1, padding=1)
    blurred = functional.avg_pool2d(ink, 3, stride=1, padding=1)
    thinner = torch.maximum(-functional.max_pool2d(-ink, 3, stride=1, padding=1), 0.6 * blurred)
    other = torch.where(kind == 0, bolder, torch.where(kind == 1, thinner, blurred))
    return torch.lerp(ink, other, amount)
