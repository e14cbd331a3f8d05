"""``crossfade doctor``: what is installed, what can be loaded, and what mends the rest."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Annotated

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
    ("ONNX export", "onnx", (("onnx", "onnx"), ("onnxruntime", "onnxruntime"))),
    ("hub", "hub", (("huggingface_hub", "huggingface-hub"),)),
)
"""What a user can want, the extra that brings it, and its packages as (import name, distribution)."""


def command(
    data: Annotated[
        str | None, typer.Argument(help="A data set to check too: counts, missing links, repeated ids.")
    ] = None,
    json_: JsonFlag = False,
) -> None:
    """Say what this installation can do, with the pip command for what it cannot; check a data set where one is named."""
    from crossfade import __version__
    from crossfade.methods import METHODS

    features = [_feature(*feature) for feature in FEATURES]
    result = {
        "crossfade": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "features": features,
        "methods": sorted(METHODS),
        "demo_encoders": _demo_encoders(),
    }
    if data is not None:
        from dataclasses import asdict

        from crossfade.datasets import check, open_dataset

        result["data"] = asdict(check(open_dataset(data)))
    if json_:
        print_json(result)
        return
    print_rows({"crossfade": __version__, "python": result["python"], "platform": result["platform"]})
    typer.echo()
    for feature in features:
        found = ", ".join(f"{name} {number}" for name, number in feature["found"].items())
        typer.echo(f"{'ok     ' if feature['ok'] else 'missing'}  {feature['feature']}  {found}")
        if not feature["ok"]:
            typer.echo(f"         missing: {', '.join(feature['missing'])} — mend with: {feature['mend']}")
    typer.echo()
    print_rows({"methods": ", ".join(sorted(METHODS)), **{f"demo encoder {k}": v for k, v in _demo_encoders().items()}})
    if data is not None:
        typer.echo()
        print_rows(result["data"])


def _feature(name: str, extra: str, packages: tuple[tuple[str, str], ...]) -> dict[str, object]:
    found, missing = {}, []
    for module, distribution in packages:
        if find_spec(module) is None:
            missing.append(distribution)
            continue
        try:
            found[distribution] = version(distribution)
        except PackageNotFoundError:
            found[distribution] = "(version unknown)"
    mend = f"pip install 'crossfade[{extra}]'" if extra else "pip install --force-reinstall crossfade"
    return {"feature": name, "ok": not missing, "found": found, "missing": missing, "mend": mend if missing else None}


def _demo_encoders() -> dict[str, str]:
    from crossfade import demo

    return {
        name: f"at {path}" if (path / "model.safetensors").exists() else "missing: reinstall crossfade"
        for name, path in (("old", demo.OLD), ("new", demo.NEW))
    }
