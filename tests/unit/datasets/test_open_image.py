from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crossfade.datasets.images import ImageFile, ImageSlice, image_suffix, open_image
from crossfade.errors import CorruptItem


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_opens_as_rgb_with_its_own_colour(kind, encoded, tmp_path):
    data = encoded((200, 30, 30), kind)
    path = tmp_path / "red"
    path.write_bytes(data)
    for source in (data, path):
        image = open_image(source)
        assert (image.mode, image.size) == ("RGB", (8, 6))
        assert np.allclose(np.asarray(image)[3, 3], (200, 30, 30), atol=4)


def test_the_exif_orientation_is_applied():
    image = Image.new("RGB", (8, 4), (0, 0, 255))
    image.paste((255, 0, 0), (0, 0, 4, 4))  # red on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    turned = open_image(saved(image, "PNG", exif=exif))
    assert turned.size == (4, 8)
    assert turned.getpixel((2, 1)) == (255, 0, 0)  # what was left is above
    assert turned.getpixel((2, 6)) == (0, 0, 255)


def test_a_damaged_exif_block_does_not_cost_the_picture():
    data = saved(Image.new("RGB", (8, 4), (10, 20, 30)), "PNG", exif=b"Exif\x00\x00garbage, not TIFF")
    assert open_image(data).getpixel((0, 0)) == (10, 20, 30)


def test_transparency_is_flattened_on_white():
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    half = Image.new("RGBA", (4, 4), (0, 0, 0, 128))
    assert open_image(saved(clear)).getpixel((1, 1)) == (255, 255, 255)
    assert open_image(saved(half)).getpixel((1, 1)) == (127, 127, 127)
    assert open_image(saved(Image.new("LA", (4, 4), (90, 0)))).getpixel((1, 1)) == (255, 255, 255)


def test_a_transparent_palette_is_flattened_on_white():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putpixel((3, 3), 1)
    for transparency in (0, bytes([0, 255])):
        image = open_image(saved(palette, "PNG", transparency=transparency))
        assert image.getpixel((0, 0)) == (255, 255, 255)
        assert image.getpixel((3, 3)) == (200, 100, 50)


def test_sixteen_bit_grey_keeps_its_range():
    ramp = np.array([[0, 256 * 100, 65535]], dtype=np.uint16)
    image = open_image(saved(Image.fromarray(ramp)))
    assert [image.getpixel((x, 0)) for x in range(3)] == [(0, 0, 0), (100, 100, 100), (255, 255, 255)]


def test_cmyk_and_bilevel_become_rgb():
    assert open_image(saved(Image.new("CMYK", (4, 4), (0, 0, 0, 0)), "JPEG")).getpixel((1, 1)) == (255, 255, 255)
    assert open_image(saved(Image.new("1", (4, 4), 1))).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_a_truncated_image_is_a_corrupt_item_at_any_length(kind):
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8)
    data = saved(Image.fromarray(noise), kind)
    for share in (0.0, 0.02, 0.3, 0.6, 0.9):
        with pytest.raises(CorruptItem, match="photo-7"):
            open_image(data[: int(len(data) * share)], item="photo-7")


def test_damage_inside_never_escapes_as_another_error():
    noise = np.random.default_rng(1).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    generator = np.random.default_rng(2)
    for kind in ("JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"):
        data = saved(Image.fromarray(noise), kind)
        for _ in range(40):
            damaged = bytearray(data)
            for place in generator.integers(0, len(data), 8):
                damaged[place] = generator.integers(0, 256)
            with contextlib.suppress(CorruptItem):
                assert open_image(bytes(damaged), item="x").mode == "RGB"


def test_text_instead_of_an_image_is_named(write):
    path = write("a.jpg", "<html>404</html>")
    with pytest.raises(CorruptItem, match=r"The image a \(.*a\.jpg\) must be a JPEG"):
        open_image(path, item="a")


def test_a_missing_file_is_a_corrupt_item_that_names_item_and_path(tmp_path):
    load = ImageFile(tmp_path / "lost.png", "emoji-1")
    assert not load.exists()
    with pytest.raises(CorruptItem, match=r"emoji-1 is missing \(.*lost\.png\)"):
        load()


def test_a_folder_instead_of_an_image_is_a_corrupt_item(tmp_path):
    with pytest.raises(CorruptItem, match="cannot be decoded"):
        open_image(tmp_path, item="x")


@pytest.mark.parametrize("factor", [1.5, 3])
def test_a_decompression_bomb_is_refused(monkeypatch, encoded, factor):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(64 * 64 / factor))
    data = encoded(size=(64, 64))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(CorruptItem, match="bomb"):
            open_image(data, item="big")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_image(data).size == (64, 64)


def test_a_slice_reads_its_bytes_out_of_a_larger_file(tmp_path, encoded):
    path = tmp_path / "packed"
    data = encoded((1, 2, 3))
    path.write_bytes(b"before" + data + b"after")
    assert ImageSlice(path, 6, len(data), "x")().getpixel((0, 0)) == (1, 2, 3)
    path.unlink()
    with pytest.raises(CorruptItem, match="x cannot be read"):
        ImageSlice(path, 6, len(data), "x")()


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.JPG", ".jpg"), ("a.tar.gz", ".gz"), ("a", ""), ("a.b/c", ""), ("2.5 cm.png", ".png")],
)
def test_the_suffix_of_a_name(name, suffix):
    assert image_suffix(name) == suffix == Path(name).suffix.lower()
