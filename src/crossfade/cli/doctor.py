"""``crossfade doctor``: what is installed, what can be loaded, and what mends the rest."""

from __future__ import annotations

import platform
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from crossfade.cli.output import JsonFlag, print_json, print_rows

NAME = "doctor"

FEATURES: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("vectors, closed-form methods, search", "", (("numpy", "numpy"), ("scipy", "scipy"), ("pyarrow", "pyarrow"))),
    ("transformers encoders (CLIP, SigLIP, …)", "encoders", (("torch", "torch"), ("transformers", "transformers"))),
    ("sentence-transformers encoders", "sentence-transformers", (("sentence_transformers", "sentence-transformers"),)),
    ("open_clip encoders", "open-clip", (("open_clip", "open-clip-torch"), ("torchvision", "torchvision"))),
    ("timm backbones", "timm", (("timm", "timm"), ("torchvision", "torchvision"))),
    ("embeddings endpoints", "openai", (("httpx", "httpx"),)),
    ("training methods (residual_mlp)", "torch", (("torch", "torch"),)),
    (
        "live stores (LanceDB, Qdrant, PostgreSQL)",
        "stores",
        (("lancedb", "lancedb"), ("qdrant_client", "qdrant-client"), ("psycopg", "psycopg")),
    ),
    ("live stores (Milvus)", "milvus", (("pymilvus", "pymilvus"),)),
    ("live stores (FAISS)", "faiss", (("faiss", "faiss-cpu"),)),
    ("ONNX export", "onnx", (("onnx", "onnx"), ("onnxruntime", "onnxruntime"))),
    ("hub", "hub", (("huggingface_hub", "huggingface-hub"),)),
)
"""What a user can want, the extra that brings it, and its packages as (import name, distribution)."""


def command(
    data: Annotated[
        str | None, typer.Argument(help="A data set to check too: counts, missing links, repeated ids.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="A collection to check too: holes, NaN, zeros, norms, repeated vectors, two models in one field."
        ),
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Check the installation, a data set, and a collection in a vector store.

    Says what can be used, and the pip command that brings the rest. A collection is read once, and nothing of it is changed.
    """
    from crossfade import __version__
    from crossfade.methods import METHODS

    features = [_feature(*feature) for feature in FEATURES]
    summary = None
    if data is not None:
        from crossfade.datasets import check, open_dataset

        summary = check(open_dataset(data))
    collection = None if store is None else _collection(store)
    about = {"crossfade": __version__, "python": sys.version.split()[0], "platform": platform.platform()}
    if json_:
        found = [_as_json(feature) for feature in features]
        print_json(
            {
                **about,
                "features": found,
                "methods": list(METHODS),
                "demo_encoders": _demo_encoders(),
                "data": summary and summary.to_dict(),
                "store": collection,
            }
        )
        return
    print_rows(about)
    typer.echo()
    for feature in features:
        typer.echo(f"{'missing' if feature.missing else 'ok':<8} {feature.name}: {', '.join(feature.found)}")
        if feature.missing:
            typer.echo(f"{'':<8} without {', '.join(feature.missing)}; mend it with: {feature.mend}")
    typer.echo()
    print_rows({"methods": ", ".join(METHODS), **{f"demo:{name}": where for name, where in _demo_encoders().items()}})
    if summary is not None:
        typer.echo()
        typer.echo(str(summary))
    for name, field in (collection or {}).get("fields", {}).items():
        typer.echo()
        typer.echo(f"{store}, field {name!r}: {field['registered'] or 'not registered (crossfade upgrade register)'}")
        print_rows(
            {what: field[what] for what in ("rows", "holes", "not_finite", "zero", "not_unit", "norms", "repeated")}
        )
        for note in field["notes"] or ["nothing is wrong"]:
            typer.echo(note)


@dataclass(frozen=True)
class _Feature:
    """Something that a user can want: the packages it found with their versions, and those it lacks."""

    name: str
    found: tuple[str, ...]
    missing: tuple[str, ...]
    mend: str


def _as_json(feature: _Feature) -> dict[str, object]:
    """A feature as JSON values."""
    return {**asdict(feature), "ok": not feature.missing}


def _feature(name: str, extra: str, packages: tuple[tuple[str, str], ...]) -> _Feature:
    found, missing = [], []
    for module, distribution in packages:
        if find_spec(module) is None:
            missing.append(distribution)
            continue
        try:
            found.append(f"{distribution} {version(distribution)}")
        except PackageNotFoundError:
            found.append(distribution)
    mend = f"pip install 'crossfade[{extra}]'" if extra else "pip install --force-reinstall crossfade"
    return _Feature(name, tuple(found), tuple(missing), mend)


def _collection(address: str) -> dict[str, Any]:
    """What every vector field of a collection is like, as JSON values."""
    from crossfade.stores import open_store
    from crossfade.stores.health import examine

    with open_store(address) as store:
        fields: dict[str, Any] = {}
        for name in store.shape.fields:
            space = store.space(name)
            fields[name] = {"registered": str(space) if space else None, **examine(store, name).to_dict()}
        return {"address": store.address, "fields": fields}


def _demo_encoders() -> dict[str, str]:
    from crossfade import demo

    return {
        name: f"at {path}" if (path / "model.safetensors").exists() else "missing: reinstall crossfade"
        for name, path in (("old", demo.OLD), ("new", demo.NEW))
    }
