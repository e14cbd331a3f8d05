"""Saved adapters: a folder of JSON and safetensors that later versions load for ever.

::

    folder/
      config.json         format, format_version, method, config, spaces, modalities, provenance, metrics
      model.safetensors   the adapter's tensors, and ``fitted_on``: the keys of the items it was fitted on
      README.md           a model card, with the measured table where there is one

Opening one and mapping a query needs NumPy and safetensors alone. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crossfade.errors import ConfigError, FormatError, MissingExtra, NewerFormat, StorageError, UnsafeFormat
from crossfade.files import atomic_folder, read_json, write_json
from crossfade.methods import adapter_class
from crossfade.methods.base import Adapter, Provenance
from crossfade.spaces import MODALITIES, Space

if TYPE_CHECKING:
    from crossfade.evaluation.result import Evaluation

__all__ = [
    "FORMAT_VERSION",
    "from_pretrained",
    "push_to_hub",
    "read_config",
    "read_spaces",
    "require_free",
    "save_pretrained",
]

FORMAT = "crossfade-adapter"
FORMAT_VERSION = 1
CONFIG = "config.json"
TENSORS = "model.safetensors"
CARD = "README.md"
FITTED_ON = "fitted_on"
UNSAFE = (".bin", ".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".joblib")


def save_pretrained(
    adapter: Adapter, path: str | Path, *, evaluation: Evaluation | None = None, overwrite: bool = False
) -> None:
    """Write an adapter as a folder, all or nothing.

    Args:
        adapter: as a method's ``fit`` returned it.
        path: the folder.
        evaluation: what :func:`crossfade.evaluate` measured of it; its table goes into the model card.
        overwrite: replace the folder if it exists.

    Raises:
        ConfigError: the adapter does not say which method made it.
        StorageError: the folder exists and may not be replaced, or cannot be written; nothing is left half-written.
    """
    from safetensors.numpy import save

    from crossfade.model_card import model_card

    made = adapter.provenance
    if made is None or adapter_class(made.method) is None:
        raise ConfigError(
            "An adapter is saved with the method that made it, and this one has none. Fit it by a method."
        )
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "crossfade_version": _version(),
        "method": made.method,
        "hyperparameters": dict(made.config),
        "adapter": adapter.config(),
        "modalities": list(adapter.modalities),
        "two_encoders": adapter.two_encoders,
        "source": {**adapter.source.to_dict(), "fingerprint": adapter.source.fingerprint},
        "target": {**adapter.target.to_dict(), "fingerprint": adapter.target.fingerprint},
        "provenance": {"seed": made.seed, "pairs": dict(made.pairs), **({"used": made.used} if made.used else {})},
        "metrics": None if evaluation is None else evaluation.to_dict(),
    }
    with atomic_folder(Path(path), overwrite=overwrite) as temporary:
        (temporary / TENSORS).write_bytes(save({**adapter.tensors(), FITTED_ON: made.fitted_on}))
        write_json(temporary / CONFIG, config)
        (temporary / CARD).write_text(model_card(adapter, evaluation), encoding="utf-8")


def from_pretrained(path: str | Path, *, revision: str | None = None) -> Adapter:
    """Open a saved adapter.

    Args:
        path: a folder, or the id ``owner/name`` of a repository on the Hugging Face hub (nothing is downloaded where a
            folder of that name exists).
        revision: branch, tag or commit of the hub's repository.

    Raises:
        FormatError: it is damaged, or not a saved adapter.
        NewerFormat: a later Crossfade wrote it.
        UnsafeFormat: its tensors are in a format that needs pickle.
        MissingExtra: a hub id was given and huggingface-hub is not installed.
    """
    folder = _folder(path, revision)
    config = _config(folder)
    try:
        source, target = Space.from_dict(config["source"]), Space.from_dict(config["target"])
        method, settings, made = str(config["method"]), config["adapter"], config["provenance"]
        hyperparameters, seed, pairs = config["hyperparameters"], int(made["seed"]), dict(made["pairs"])
        used = str(made.get("used", ""))
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{folder / CONFIG} lacks or garbles the field {error}. Copy the folder again.") from error
    kind = adapter_class(method)
    if kind is None:
        raise FormatError(
            f"{folder / CONFIG} names the method {method!r}, which this Crossfade does not have. Upgrade it."
        )
    for name, space in (("source", source), ("target", target)):
        recorded = config[name].get("fingerprint", space.fingerprint)
        if recorded != space.fingerprint:
            raise FormatError(
                f"The {name} space of {folder / CONFIG} has fingerprint {space.fingerprint}, and {recorded} was "
                "recorded: a field was changed. Copy the folder again."
            )
    tensors = _tensors(folder)
    fitted_on = tensors.pop(FITTED_ON, np.empty(0, dtype=np.uint64))
    _check_numbers(folder, tensors)
    try:
        adapter = kind.restore(source, target, settings, tensors)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise FormatError(f"{folder} lacks or garbles the tensor or setting {error}. Copy the folder again.") from error
    adapter.provenance = Provenance(method, hyperparameters, seed, pairs, fitted_on, used)
    return adapter


def push_to_hub(
    adapter: Adapter,
    repo_id: str,
    *,
    evaluation: Evaluation | None = None,
    token: str | None = None,
    private: bool = True,
) -> str:
    """Upload a saved adapter to the Hugging Face hub.

    Args:
        adapter: as a method's ``fit`` returned it.
        repo_id: ``owner/name``; made if it does not exist.
        evaluation: see :func:`save_pretrained`.
        token: an access token; by default the one that ``huggingface-cli login`` stored.
        private: whether a new repository is private.

    Returns:
        The address of the commit.

    Raises:
        MissingExtra: huggingface-hub is not installed.
        StorageError: the hub refused or could not be reached.
    """
    import tempfile

    try:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", extra="hub", feature="Pushing to the hub") from error
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "adapter"
        save_pretrained(adapter, folder, evaluation=evaluation)
        api = HfApi(token=token)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Upload Crossfade adapter")
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise StorageError(
                f"The adapter could not be pushed to {repo_id}: {error}. Check the name and the token."
            ) from error
    return str(commit.commit_url)


def read_spaces(path: str | Path) -> tuple[Space, Space] | None:
    """The source and target space of a saved adapter; None where the folder's config.json is of something else."""
    config = read_json(Path(path) / CONFIG)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        return None
    checked = _config(Path(path))
    return Space.from_dict(checked["source"]), Space.from_dict(checked["target"])


def read_config(folder: Path, *, kind: str, format_: str, version: int) -> dict[str, Any]:
    """What the config.json of a saved model says, once it is known to be of this format.

    Args:
        folder: of the model.
        kind: what is looked for, for the messages.
        format_: what must stand under ``format``.
        version: the newest ``format_version`` that this Crossfade reads.

    Raises:
        FormatError: there is none, or it is of another format.
        NewerFormat: a later Crossfade wrote it.
    """
    if not (folder / CONFIG).is_file():
        raise FormatError(f"{folder} is not a {kind}: it has no {CONFIG}. Check the folder's name.")
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("format") != format_:
        raise FormatError(
            f"{folder / CONFIG} must have the format {format_!r} and has not. It is of another kind of model."
        )
    found = config.get("format_version")
    if not isinstance(found, int):
        raise FormatError(f"{folder / CONFIG} must have a whole format_version; found {found!r}. Copy it again.")
    if found > version:
        raise NewerFormat(
            f"{folder} has format version {found}; this Crossfade reads up to {version}. Upgrade crossfade."
        )
    return config


def require_free(path: str | Path, *, overwrite: bool) -> None:
    """Refuse early what :func:`save_pretrained` would refuse after the work.

    Raises:
        StorageError: ``path`` exists and may not be replaced.
    """
    if Path(path).exists() and not overwrite:
        raise StorageError(
            f"{path} exists already, and nothing is overwritten unasked. Choose another place, or allow overwriting."
        )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("crossfade")
    except PackageNotFoundError:
        return ""


def _folder(path: str | Path, revision: str | None) -> Path:
    folder = Path(path)
    if folder.suffix in UNSAFE:
        raise UnsafeFormat(f"{path} would need pickle to be read, which can run any code. Save it as safetensors.")
    if folder.is_dir():
        return folder
    parts = str(path).split("/")
    if folder.exists() or len(parts) != 2 or not all(parts) or str(path).startswith((".", "~")):
        raise FormatError(f"{path} is not a folder of a saved adapter. Give the folder, or a hub id as owner/name.")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    except ImportError as error:
        raise MissingExtra("huggingface_hub", extra="hub", feature=f"Opening {path} from the hub") from error
    try:
        return Path(snapshot_download(str(path), revision=revision, allow_patterns=[CONFIG, TENSORS, CARD]))
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise FormatError(f"There is no folder {path}, and the hub gave none either: {error}") from error


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        _refuse_unsafe(folder)
    config = read_config(folder, kind="saved adapter", format_=FORMAT, version=FORMAT_VERSION)
    unknown = set(config.get("modalities", ())) - set(MODALITIES)
    if unknown:
        raise FormatError(
            f"{folder / CONFIG} names the modalities {sorted(unknown)}, which do not exist. Copy it again."
        )
    return config


def _refuse_unsafe(folder: Path) -> None:
    unsafe = sorted(file.name for file in folder.iterdir() if file.suffix in UNSAFE)
    if unsafe:
        raise UnsafeFormat(
            f"{folder} has {unsafe[0]} and no {TENSORS}: it would need pickle to be read, which can run any code. "
            "Save it as safetensors."
        )


def _tensors(folder: Path) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not (folder / TENSORS).exists():
        _refuse_unsafe(folder)
        raise FormatError(f"{folder} has no {TENSORS}. Copy the folder again.")
    try:
        return dict(load_file(folder / TENSORS))
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise FormatError(
            f"{folder / TENSORS} cannot be read ({error}). It may be truncated: copy it again."
        ) from error


def _check_numbers(folder: Path, tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, tensor in tensors.items():
        if name.endswith(f".{FITTED_ON}") and tensor.dtype == np.uint64:
            continue  # keys of a chain's member
        if tensor.dtype.kind != "f" or not np.isfinite(tensor).all():
            raise FormatError(f"The tensor {name!r} of {folder / TENSORS} must be finite numbers. Copy it again.")
