"""The documentation says what the code does: the examples run, the generated pages are current, the links lead somewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def run(example: str, folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_example_runs_and_the_first_pages_goes_on_from_its_vectors(tmp_path: Path) -> None:
    (example,) = python_blocks(ROOT / "README.md")
    lines = [line for line in example.splitlines() if line.strip()]
    assert len(lines) <= 10
    (tmp_path / "readme").mkdir()
    assert "compatible" in run(example, tmp_path / "readme")
    shutil.copytree(tmp_path / "readme" / "vectors", tmp_path / "index" / "vectors")
    assert "compatible" in run("\n".join(python_blocks(ROOT / "docs" / "index.md")), tmp_path / "index")


@pytest.mark.parametrize(
    "page",
    [
        "vectors.md",
        "chains.md",
        "compatible-training.md",
        "contrastive.md",
        "integrations.md",
        "stores.md",
        "two-stage.md",
        "upgrading.md",
        "xbt.md",
    ],
)
def test_the_examples_of_a_page_run_one_after_the_other(page: str, tmp_path: Path) -> None:
    run("\n".join(python_blocks(ROOT / "docs" / page)), tmp_path)


def test_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_every_method_is_on_the_page_that_helps_to_choose() -> None:
    from crossfade.methods import METHODS

    page = (ROOT / "docs" / "choose-a-method.md").read_text(encoding="utf-8")
    assert not [name for name in METHODS if f"`{name}`" not in page]


def test_every_verb_is_in_the_command_line_reference() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    verbs = {
        path.stem.replace("_", "-")
        for path in (ROOT / "src" / "crossfade" / "cli").glob("*.py")
        if "NAME = " in path.read_text()
    }
    assert len(verbs) >= 9
    assert not [verb for verb in verbs if f"## crossfade {verb}" not in page]
