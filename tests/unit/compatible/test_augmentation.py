"""Augmentation, re-derived one image at a time: which crop, which mirror, and what they depend on."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional

from crossfade.compatible.augmentation import ATTEMPTS, AUGMENTATIONS, Augmentation, ImageInputs, draws
from crossfade.errors import ConfigError

UNIT = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255, 1 / 255, 1 / 255)}  # the network sees 0 … 255
NUMBERS = torch.arange(100, 164)


def pictures(count: int = 64, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def inputs(config: Augmentation, size: int = 12, seed: int = 3) -> ImageInputs:
    return ImageInputs(size, augmentation=config, seed=seed, **UNIT)


def splitmix(word: int) -> int:
    """Of a 64-bit word, as published: the finaliser alone."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return word ^ (word >> 31)


class TestDraws:
    def test_the_slow_way_in_whole_numbers_of_python(self) -> None:
        golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1
        seed, step = 7, 41
        start = splitmix((splitmix((seed + golden) & mask) + step + golden) & mask)
        found = draws(torch.tensor([0, 5, 2**40]), step, seed=seed, count=3)
        for row, number in enumerate((0, 5, 2**40)):
            image = splitmix((start + number) & mask)
            for column in range(3):
                assert int(found[row, column]) == splitmix((image + (column + 1) * golden) & mask) >> 40

    def test_they_are_uniform_and_columns_do_not_agree(self) -> None:
        found = draws(torch.arange(20_000), 0, seed=0, count=4).double() / 2**24
        assert float(found.min()) >= 0
        assert float(found.max()) < 1
        tenths = torch.histc(found.flatten(), bins=10, min=0, max=1) / found.numel()
        assert torch.allclose(tenths, torch.full((10,), 0.1, dtype=torch.float64), atol=0.005)
        assert (torch.corrcoef(found.T) - torch.eye(4)).abs().max() < 0.03

    @pytest.mark.parametrize("changed", [{"seed": 1}, {"step": 1}, {"numbers": torch.arange(1, 1001)}])
    def test_seed_step_and_number_each_change_all_of_them(self, changed: dict[str, object]) -> None:
        usual: dict[str, object] = {"numbers": torch.arange(1000), "step": 0, "seed": 0}
        first, second = (draws(**given, count=2) for given in (usual, usual | changed))  # type: ignore[arg-type]
        assert (first != second).double().mean() > 0.999
        correlation = torch.corrcoef(torch.stack([first.flatten().double(), second.flatten().double()]))[0, 1]
        assert abs(float(correlation)) < 0.1


class TestPadded:
    def test_each_image_is_a_window_of_the_padded_one_mirrored_or_not(self) -> None:
        pixels = pictures()
        made = inputs(Augmentation(padding=2, fill=9)).augmented(pixels, NUMBERS, 5)
        seen: Counter[tuple[int, int, bool]] = Counter()
        for image, result in zip(pixels.numpy(), made.numpy(), strict=True):
            padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), constant_values=9)
            windows = {
                (y, x, flip): padded[y : y + 12, x : x + 12][:, :: -1 if flip else 1]
                for y in range(5)
                for x in range(5)
                for flip in (False, True)
            }
            found = [place for place, window in windows.items() if np.allclose(window, result.transpose(1, 2, 0))]
            assert len(found) == 1
            seen[found[0]] += 1
        assert {y for y, _, _ in seen} == {x for _, x, _ in seen} == set(range(5))
        assert 16 < sum(count for (_, _, flip), count in seen.items() if flip) < 48

    def test_every_offset_is_as_likely_as_any_other(self) -> None:
        ramp = torch.arange(12, dtype=torch.uint8).repeat(12, 1)[None, :, :, None].expand(5000, -1, -1, 3)
        made = inputs(Augmentation(padding=4, fill=200, flip=False)).augmented(ramp, torch.arange(5000), 0)
        offsets = made[:, 0, 6, 6].round().int()  # never padding: which column of the image came there
        shares = np.asarray(sorted(Counter(offsets.tolist()).values())) / 5000
        assert set(offsets.tolist()) == set(range(2, 11))
        assert shares == pytest.approx(1 / 9, abs=0.02)

    def test_no_flip(self) -> None:
        ramp = torch.arange(12, dtype=torch.uint8).repeat(12, 1)[None, :, :, None].expand(64, -1, -1, 3)
        made = inputs(AUGMENTATIONS["glyphs"]).augmented(ramp, NUMBERS, 0)[:, 0, 6]
        inside = made[:, 5:7]  # never padding, which is at most 4 wide
        assert (inside[:, 1] - inside[:, 0] == 1).all()
        assert made.max() == 255  # the padding of black on white is white

    def test_a_smaller_crop_of_larger_images(self) -> None:
        pixels = pictures(size=16)
        made = inputs(Augmentation(padding=0, flip=False)).augmented(pixels, NUMBERS, 0)
        for image, result in zip(pixels.numpy(), made.numpy(), strict=True):
            windows = [image[y : y + 12, x : x + 12] for y in range(5) for x in range(5)]
            assert sum(np.allclose(window, result.transpose(1, 2, 0)) for window in windows) == 1


class TestResized:
    def slowly(self, image: torch.Tensor, number: int, step: int, config: Augmentation, size: int) -> torch.Tensor:
        """As torchvision words it: draw, look whether it fits, cut out, resize."""
        drawn = draws(torch.tensor([number]), step, seed=3, count=3 + 2 * ATTEMPTS)[0].tolist()
        stored = image.shape[0]
        height = width = stored
        for attempt in range(ATTEMPTS):
            u, v = drawn[3 + attempt] / 2**24, drawn[3 + ATTEMPTS + attempt] / 2**24
            area = (config.area[0] + (config.area[1] - config.area[0]) * u) * stored * stored
            ratio = math.exp(math.log(config.aspect[0]) + math.log(config.aspect[1] / config.aspect[0]) * v)
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= stored and 0 < h <= stored:
                height, width = h, w
                break
        top, left = drawn[1] * (stored - height + 1) >> 24, drawn[2] * (stored - width + 1) >> 24
        window = image[top : top + height, left : left + width].permute(2, 0, 1).float()[None]
        made = functional.interpolate(window, size=(size, size), mode="bilinear", align_corners=False)[0]
        return made.flip(2) if drawn[0] < 2**23 else made

    @pytest.mark.parametrize(("stored", "size"), [(12, 12), (24, 20), (12, 30)])
    @pytest.mark.parametrize(
        "config", [AUGMENTATIONS["imagenet"], Augmentation("resized", area=(0.9, 1), aspect=(0.2, 5))]
    )
    def test_against_the_slow_way(self, stored: int, size: int, config: Augmentation) -> None:
        pixels = pictures(size=stored)
        made = inputs(config, size).augmented(pixels, NUMBERS, 8)
        assert made.shape == (64, 3, size, size)
        for image, number, result in zip(pixels, NUMBERS.tolist(), made, strict=True):
            assert torch.allclose(result, self.slowly(image, number, 8, config, size), atol=0.02)


class TestWhatItDependsOn:
    @pytest.mark.parametrize("name", ["cifar", "imagenet", "glyphs"])
    def test_on_number_step_and_seed_and_not_on_the_batch(self, name: str) -> None:
        make, pixels = inputs(AUGMENTATIONS[name]), pictures()
        whole = make.augmented(pixels, NUMBERS, 5)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
        parts = [make.augmented(pixels[part], NUMBERS[part], 5) for part in order.split(13)]
        assert torch.equal(whole[order], torch.cat(parts))
        assert not torch.equal(whole, make.augmented(pixels, NUMBERS, 6))
        assert not torch.equal(whole, make.augmented(pixels, NUMBERS + 1, 5))
        assert not torch.equal(whole, inputs(AUGMENTATIONS[name], seed=4).augmented(pixels, NUMBERS, 5))

    def test_no_generator_is_touched_and_no_pixel_changed(self) -> None:
        pixels, state = pictures(), torch.get_rng_state()
        before = pixels.clone()
        for name in AUGMENTATIONS:
            inputs(AUGMENTATIONS[name]).augmented(pixels, NUMBERS, 0)
        assert torch.equal(pixels, before)
        assert torch.equal(torch.get_rng_state(), state)


class TestPlain:
    def test_normalised_by_the_given_mean_and_deviation(self) -> None:
        mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
        pixels = pictures()
        make = ImageInputs(12, mean=mean, std=std, augmentation=AUGMENTATIONS["off"])
        expected = (pixels.numpy() / 255 - np.asarray(mean)) / np.asarray(std)
        for made in (make.plain(pixels), make.augmented(pixels, NUMBERS, 2)):
            assert made.dtype == torch.float32
            assert made.is_contiguous(memory_format=torch.channels_last)
            np.testing.assert_allclose(made.numpy().transpose(0, 2, 3, 1), expected, atol=1e-5)

    def test_the_centre_of_larger_images(self) -> None:
        pixels = pictures(size=16)
        made = inputs(AUGMENTATIONS["off"]).plain(pixels)
        np.testing.assert_array_equal(made.numpy().transpose(0, 2, 3, 1).round(), pixels.numpy()[:, 2:14, 2:14])
        assert torch.equal(made, inputs(AUGMENTATIONS["off"]).augmented(pixels, NUMBERS, 0))

    def test_smaller_images_are_enlarged(self) -> None:
        pixels = pictures()
        expected = functional.interpolate(pixels.permute(0, 3, 1, 2).float(), size=(28, 28), mode="bilinear")
        assert torch.allclose(inputs(AUGMENTATIONS["off"], 28).plain(pixels), expected, atol=1e-3)
        assert inputs(AUGMENTATIONS["cifar"], 28).augmented(pixels, NUMBERS, 0).shape == (64, 3, 28, 28)


@pytest.mark.parametrize(
    "wrong",
    [
        {"crop": "random"},
        {"padding": -1},
        {"fill": 256},
        {"area": (0.0, 1.0)},
        {"area": (0.5, 1.1)},
        {"area": (0.6, 0.5)},
        {"aspect": (0.0, 1.0)},
        {"aspect": (2.0, 1.0)},
    ],
)
def test_options_out_of_range(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="found"):
        Augmentation(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"size": 0}, {"mean": (0, 0)}, {"std": (1, 1, 0)}])
def test_inputs_out_of_range(wrong: dict[str, object]) -> None:
    given: dict[str, object] = {"size": 8, **UNIT, **wrong}
    with pytest.raises(ConfigError, match="three means and three deviations above 0; found"):
        ImageInputs(augmentation=AUGMENTATIONS["off"], **given)  # type: ignore[arg-type]


def test_a_batch_costs_little() -> None:
    # About a millisecond on an idle core; the bound leaves room for a busy machine.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        make, pixels, numbers = inputs(AUGMENTATIONS["cifar"], 32), pictures(128, 32), torch.arange(128)
        took = []
        for step in range(40):
            start = time.perf_counter()
            make.augmented(pixels, numbers, step)
            took.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    assert min(took) < 0.01
