"""Where a benchmark's figures come from: revision, versions, hardware; and how they are written down."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "scipy", "torch", "transformers", "pyarrow", "faiss-cpu", "scikit-learn")


def provenance() -> dict[str, Any]:
    """Git revision, package versions and processor of this run."""
    git = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "revision": git.stdout.strip() or None,
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
    }


Rows = list[dict[str, Any]]


def write(folder: Path, config: dict[str, Any], results: Any, *, table: Rows | dict[str, Rows] | None = None) -> Path:
    """Append this run to ``folder/result.json``: earlier runs stay; ``table`` is what the documentation shows of it, one
    table or several under their titles.
    """
    path = folder / "result.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    runs.append({**provenance(), "config": config, "results": results, "table": table})
    path.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    return path


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def shared_data(name: str) -> Path | None:
    """A folder of real data that stands beside the project's, or None where it is not there."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data" / name
    return folder if folder.is_dir() else None
