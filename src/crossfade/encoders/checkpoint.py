"""Finding a model's files: a local folder as it is, a hub id through the hub's own cache; weights in safetensors only.

Everything is loaded from the folder that is found here, so that all files of one model come from one commit, nothing is
fetched that the model does not need, and no pickle is ever downloaded, let alone read.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from crossfade.encoders.packages import need
from crossfade.errors import ConfigError, CrossfadeError, EncoderError, UnsafeFormat

__all__ = ["Checkpoint", "find_checkpoint"]

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_UNWANTED = ["onnx/*", "openvino/*", "*.fp16.safetensors", "*.fp32.safetensors", "original/*"]
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_DIGITS = 12  # of the digest that names local weights


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model's files.

    Attributes:
        name: the hub id, or the name of the local folder.
        folder: where the files are.
        revision: the hub's commit, or twelve digits of the SHA-256 of the safetensors files.
    """

    name: str
    folder: Path
    revision: str


def find_checkpoint(name: str, *, revision: str | None = None) -> Checkpoint:
    """Find a model by folder or hub id; the hub is asked only for a name that is not a folder here.

    Args:
        name: a local folder, or a hub id; ``id@revision`` names a branch, a tag or a commit.
        revision: the same, apart from the name.

    Raises:
        EncoderError: there is no such folder and no such model on the hub, or it has no weights.
        UnsafeFormat: its weights are pickled.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ConfigError(f"A revision names a commit on the hub, and {name} is a local folder. Leave it out.")
        _require_safetensors(name, folder)
        return Checkpoint(folder.resolve().name, folder.resolve(), _digest(folder))
    hub_id, _, tagged = name.partition("@")
    if not _HUB_ID.fullmatch(hub_id):
        raise EncoderError(f"{name} is neither a folder here nor a hub id (owner/model). Check the path.")
    found = _from_hub(hub_id, revision or tagged or None)
    _require_safetensors(hub_id, found)
    commit = found.name if _COMMIT.fullmatch(found.name) else _digest(found)
    return Checkpoint(hub_id, found, commit)


def _from_hub(hub_id: str, revision: str | None) -> Path:
    hub = need("huggingface_hub", extra="hub", feature=f"Loading {hub_id} from the hub")
    try:
        folder = hub.snapshot_download(
            hub_id, revision=revision, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, library_name="crossfade"
        )
    except CrossfadeError:
        raise
    except Exception as error:
        what = hub_id if revision is None else f"{hub_id} at {revision}"
        offline = " HF_HUB_OFFLINE is set: unset it to download." if hub.constants.HF_HUB_OFFLINE else ""
        reason = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
        raise EncoderError(
            f"{what} is no folder here, is not in the hub's cache, and could not be downloaded ({reason}).{offline} "
            "Check the name and the connection, log in with 'hf auth login' if the model is gated, or give a "
            "local folder."
        ) from error
    return Path(folder)


def _weights(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.rglob("*.safetensors") if not path.relative_to(folder).parts[0].startswith(".")
    )


def _require_safetensors(name: str, folder: Path) -> None:
    for part in [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]:
        pickled = sorted(path.name for path in part.iterdir() if path.suffix in _PICKLED)
        if pickled and not any(part.glob("*.safetensors")):
            raise _pickled(name, f"{part / pickled[0]} only")
    if not _weights(folder):
        if (folder / "config.json").exists():
            raise _pickled(name, "no safetensors file at all")
        raise EncoderError(f"{name} holds no model: neither config.json nor *.safetensors is there. Check the path.")


def _pickled(name: str, found: str) -> UnsafeFormat:
    return UnsafeFormat(
        f"Weights are read from safetensors only, because reading pickled ones can run any code; {name} has {found}. "
        "Convert it once, where you trust the file: "
        f"transformers.AutoModel.from_pretrained('{name}').save_pretrained('converted', safe_serialization=True), "
        "with its tokenizer and image processor beside it; or name a revision that has safetensors (id@refs/pr/N)."
    )


def _digest(folder: Path) -> str:
    files = _weights(folder)
    digests = [_sha256(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    if len(files) == 1:
        return digests[0][:_DIGITS]
    lines = [f"{path.relative_to(folder).as_posix()} {digest}" for path, digest in zip(files, digests, strict=True)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:_DIGITS]


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    """The digest of a file, computed once for each state of it: weights are gigabytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
