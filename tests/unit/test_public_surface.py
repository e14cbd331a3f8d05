"""The public names, the import rules, and what must never be imported on the quick paths."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import crossfade as cf

SOURCE = Path(cf.__file__).parent

PUBLIC = {
    "METHODS", "Adapter", "Collection", "CrossfadeError", "Dataset", "Embeddings", "Encoder", "Evaluation", "ImageItem",
    "Judgement", "Link", "Method", "Pairs", "Relevance", "Space", "TextItem", "TwoStage", "VectorCache", "__version__",
    "datasets", "encode", "encode_dataset", "encoders", "errors", "evaluate", "evaluate_two_stage", "export_onnx",
    "fit", "from_pretrained", "judge", "load_encoder", "methods", "open_collection", "open_dataset", "pair",
    "push_to_hub", "save_pretrained", "search", "write_report",
}  # fmt: skip

LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "spaces": {"errors"},
    "files": {"errors"},
    "embeddings": {"errors", "spaces", "files"},
    "pairing": {"errors", "spaces", "embeddings"},
    "datasets": {"errors", "spaces", "files", "embeddings"},
    "evaluation": {"errors", "spaces", "files", "embeddings"},
    "stores": {"errors", "spaces", "files", "embeddings"},
    "upgrading": {
        "errors", "spaces", "files", "embeddings", "stores", "artifacts", "pairing", "datasets", "methods", "evaluation",
        "encoding", "two_stage",
    },
    "integrations": {
        "errors", "spaces", "encoders", "embeddings", "datasets", "methods", "artifacts", "stores", "upgrading",
    },
    "methods": {"errors", "spaces", "files", "embeddings", "pairing", "artifacts", "training"},
    "backbones": {"errors", "files", "encoders"},
    "compatible": {
        "errors", "spaces", "files", "embeddings", "datasets", "methods", "encoders", "encoding", "backbones", "training",
    },
}  # fmt: skip
"""What each part may import of Crossfade, beside itself: Adapter.save_pretrained delegates to artifacts, and methods that
train import the loop when they are fitted."""


def test_the_public_names_are_these_and_all_exist() -> None:
    assert set(cf.__all__) == PUBLIC
    for name in cf.__all__:
        assert getattr(cf, name) is not None
    assert set(dir(cf)) == PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = cf.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("part", sorted(LAYERS))
def test_each_part_imports_only_what_lies_below_it(part: str) -> None:
    files = [SOURCE / f"{part}.py"] if (SOURCE / f"{part}.py").exists() else sorted((SOURCE / part).rglob("*.py"))
    assert files
    for file in files:
        for imported in _imported_parts(file):
            assert imported in LAYERS[part] | {part}, f"{file.relative_to(SOURCE)} imports crossfade.{imported}"


def _imported_parts(file: Path) -> set[str]:
    """What a file imports when it runs: not what only a type checker reads."""
    found = set()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(inner) for outer in typing for inner in ast.walk(outer)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found |= {name.split(".")[1] for name in names if name.startswith("crossfade.")}
    return found


QUICK = {
    "import": "import crossfade",
    "help": "import sys; sys.argv = ['crossfade', '--help']\n"
    "from crossfade.cli import main\ntry:\n    main()\nexcept SystemExit: pass",
    "evaluation": "import crossfade.evaluation",
    "methods": "import crossfade.methods\nfor name in crossfade.methods.METHODS: crossfade.methods.METHODS[name]",
    "datasets": "import crossfade.datasets",
    "encoders": "import crossfade.encoders",
    "stores": "import crossfade.stores",
    "upgrading": "import crossfade.upgrading",
    "integrations": "import crossfade.integrations",
    "compatible": "import crossfade.backbones\n"
    "from crossfade.compatible import COMPATIBLE\nassert 'bt2' in list(COMPATIBLE)",
}


@pytest.mark.parametrize("path", sorted(QUICK))
def test_the_quick_paths_never_import_torch(path: str) -> None:
    code = (
        QUICK[path]
        + "\nimport sys\nheavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules)\nassert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
