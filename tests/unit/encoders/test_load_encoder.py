"""From names to encoders: prefixes, files, the hub's cache, missing packages."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import crossfade.encoders
from crossfade.encoders import TransformersDualEncoder, load_encoder
from crossfade.encoders.checkpoint import find_checkpoint
from crossfade.encoders.loading import PREFIXES
from crossfade.errors import ConfigError, EncoderError, MissingExtra, UnsafeFormat

Get = Callable[[str], Path]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
DEMO = Path(crossfade.encoders.__file__).parents[1] / "demo"
HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None


def offline(cache: Path, code: str) -> str:
    """Run code in a process that sees this cache of the hub and no network."""
    environment = {**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_imports_no_model_library() -> None:
    code = (
        "import sys, crossfade.encoders, crossfade.encoding\n"
        "print(*{'torch', 'transformers', 'httpx', 'sentence_transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == []


def test_the_public_names_are_there() -> None:
    for name in crossfade.encoders.__all__:
        assert getattr(crossfade.encoders, name) is not None
    assert crossfade.encoders.__all__ == sorted(crossfade.encoders.__all__)


def test_the_table_of_prefixes_in_the_docs_is_whole() -> None:
    for prefix in PREFIXES:
        assert f"``{prefix}:" in (crossfade.encoders.__doc__ or "")


def test_names_that_mean_nothing(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="prefix must be one of demo, dual"):
        load_encoder("clip:ViT-B-32")
    with pytest.raises(EncoderError, match="must be named after the prefix"):
        load_encoder("vision:")
    with pytest.raises(EncoderError, match="demo:old and demo:new; found 'demo:middle'"):
        load_encoder("demo:middle")
    with pytest.raises(EncoderError, match="neither a folder here nor a hub id"):
        load_encoder(str(tmp_path / "nowhere"))
    with pytest.raises(EncoderError, match="holds no model"):
        load_encoder(str(tmp_path))


def test_options_that_do_not_apply(checkpoint: Get) -> None:
    folder = str(checkpoint("clip"))
    with pytest.raises(ConfigError, match="takes no query_prefix or dimensions"):
        load_encoder(folder, query_prefix="q", dimensions=3)
    with pytest.raises(ConfigError, match="a local folder"):
        load_encoder(folder, revision="main")


def test_a_folder_with_a_colon_in_its_name(checkpoint: Get, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("clip"), tmp_path / "v:2")
    assert isinstance(load_encoder(str(folder), device="cpu"), TransformersDualEncoder)


def test_a_model_in_the_hubs_cache(checkpoint: Get, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--tiny"
    shutil.copytree(checkpoint("clip"), repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    code = (
        "from crossfade.encoders import load_encoder\n"
        f"for name in ('owner/tiny', 'owner/tiny@{COMMIT}'):\n"
        "    space = load_encoder(name, device='cpu').space\n"
        "    print(space.model, space.revision)\n"
        "try:\n    load_encoder('owner/other')\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
        "try:\n    load_encoder('owner/tiny@v9')\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    *loaded, other, revision = offline(tmp_path, code).splitlines()
    assert loaded == [f"owner/tiny {COMMIT}"] * 2
    assert other.startswith("EncoderError owner/other is no folder here, is not in the hub's cache")
    assert "HF_HUB_OFFLINE is set" in other
    assert revision.startswith("EncoderError owner/tiny at v9 is no folder here")


def test_a_model_of_the_hub_without_safetensors(checkpoint: Get, tmp_path: Path) -> None:
    repository = tmp_path / "models--owner--tiny"
    ignore = shutil.ignore_patterns("*.safetensors")
    shutil.copytree(checkpoint("clip"), repository / "snapshots" / COMMIT, ignore=ignore)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    code = (
        "from crossfade.encoders import load_encoder\n"
        "try:\n    load_encoder('owner/tiny')\nexcept Exception as error:\n    print(type(error).__name__, error)\n"
    )
    said = offline(tmp_path, code)
    assert said.startswith("UnsafeFormat Weights are read from safetensors only")
    assert "save_pretrained" in said


def test_the_digest_of_several_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    one = find_checkpoint(str(tmp_path)).revision
    (tmp_path / "b.safetensors").write_bytes(b"two")
    two = find_checkpoint(str(tmp_path)).revision
    (tmp_path / "b.safetensors").write_bytes(b"three")
    assert len({one, two, find_checkpoint(str(tmp_path)).revision}) == 3
    (tmp_path / "a.safetensors").rename(tmp_path / "pytorch_model.bin")
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(UnsafeFormat):
        find_checkpoint(str(tmp_path))


@pytest.mark.skipif(HAS_TORCHVISION, reason="torchvision is installed, so that nothing is missing")
@pytest.mark.parametrize(
    ("name", "extra"), [("open_clip:ViT-B-32/laion2b_s34b_b79k", "open-clip"), ("timm:resnet50.a1_in1k", "timm")]
)
def test_missing_packages_are_named_with_their_command(name: str, extra: str) -> None:
    with pytest.raises(MissingExtra, match=rf"pip install 'crossfade\[{extra}\]'"):
        load_encoder(name)


@pytest.mark.parametrize("age", ["old", "new"])
def test_the_demo_encoders_load_as_any_clip_does(age: str) -> None:
    encoder = load_encoder(f"demo:{age}", device="cpu")
    assert isinstance(encoder, TransformersDualEncoder)
    assert encoder.space.model == f"glyphs-{age}"
    assert encoder.space == load_encoder(str(DEMO / f"glyphs-{age}"), device="cpu").space
    with pytest.raises(ConfigError, match="takes no revision"):
        load_encoder(f"demo:{age}", revision="main")
