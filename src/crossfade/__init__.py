"""Crossfade moves a retrieval system to a new embedding model without re-embedding its gallery.

::

    items ──encode──▶ Embeddings ──pair──▶ Pairs ──fit──▶ Adapter ──evaluate──▶ report

Every name here is loaded when it is first used, so that ``import crossfade`` is quick and never imports torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossfade import datasets, encoders, errors, methods
    from crossfade.artifacts import from_pretrained, push_to_hub, save_pretrained
    from crossfade.datasets import Dataset, ImageItem, Link, TextItem, open_dataset
    from crossfade.embeddings import Embeddings
    from crossfade.embeddings.collection import Collection, open_collection
    from crossfade.encoders import Encoder, load_encoder
    from crossfade.encoding import encode, encode_dataset
    from crossfade.errors import CrossfadeError
    from crossfade.evaluation import Evaluation, Relevance, evaluate, search
    from crossfade.exporting import export_onnx
    from crossfade.fitting import fit
    from crossfade.judging import Judgement, judge
    from crossfade.methods import METHODS, Adapter, Method
    from crossfade.pairing import Pairs, pair
    from crossfade.reporting import write_report
    from crossfade.spaces import Space
    from crossfade.two_stage import TwoStage, VectorCache, evaluate_two_stage

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "Adapter",
    "Collection",
    "CrossfadeError",
    "Dataset",
    "Embeddings",
    "Encoder",
    "Evaluation",
    "ImageItem",
    "Judgement",
    "Link",
    "Method",
    "Pairs",
    "Relevance",
    "Space",
    "TextItem",
    "TwoStage",
    "VectorCache",
    "__version__",
    "datasets",
    "encode",
    "encode_dataset",
    "encoders",
    "errors",
    "evaluate",
    "evaluate_two_stage",
    "export_onnx",
    "fit",
    "from_pretrained",
    "judge",
    "load_encoder",
    "methods",
    "open_collection",
    "open_dataset",
    "pair",
    "push_to_hub",
    "save_pretrained",
    "search",
    "write_report",
]

_HOMES = {
    "METHODS": "methods",
    "Adapter": "methods",
    "Collection": "embeddings.collection",
    "CrossfadeError": "errors",
    "Dataset": "datasets",
    "Embeddings": "embeddings",
    "Encoder": "encoders",
    "Evaluation": "evaluation",
    "ImageItem": "datasets",
    "Judgement": "judging",
    "Link": "datasets",
    "Method": "methods",
    "Pairs": "pairing",
    "Relevance": "evaluation",
    "Space": "spaces",
    "TextItem": "datasets",
    "TwoStage": "two_stage",
    "VectorCache": "two_stage",
    "encode": "encoding",
    "encode_dataset": "encoding",
    "evaluate": "evaluation",
    "evaluate_two_stage": "two_stage",
    "export_onnx": "exporting",
    "fit": "fitting",
    "from_pretrained": "artifacts",
    "judge": "judging",
    "load_encoder": "encoders",
    "open_collection": "embeddings.collection",
    "open_dataset": "datasets",
    "pair": "pairing",
    "push_to_hub": "artifacts",
    "save_pretrained": "artifacts",
    "search": "evaluation",
    "write_report": "reporting",
}
_MODULES = ("datasets", "encoders", "errors", "methods")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"crossfade.{name}")
    if name in _HOMES:
        return getattr(import_module(f"crossfade.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'crossfade' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
