"""Compiled or exported graphs in the user's cache, by everything that they depend on.

Does not know what a graph is.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from controls.errors import UserError
from controls.files import write_atomic

KEEP = 12  # graphs of a kind; each is tens of megabytes


def cache_path(kind: str, suffix: str, *parts: object) -> Path:
    """Where the graph that these parts and this code name is kept."""
    package = Path(__file__).parent.parent
    files = [*sorted(package.glob("model/*.py")), *sorted(package.glob("tokenizer/*.py"))]
    files += [package / "runtime" / name for name in ("explicit.py", "int8_graph.py", "onnx_export.py")]
    source = "".join(path.read_text() for path in files)
    name = hashlib.sha256("|".join([*map(str, parts), source]).encode()).hexdigest()[:32]
    root = Path(os.environ.get("FARSTEP_CACHE") or Path.home() / ".cache" / "farstep")
    return root / kind / f"{name}{suffix}"


def read(path: Path) -> bytes | None:
    """What is kept there, if it can be read."""
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return None


def keep(path: Path, blob: bytes) -> None:
    """Keep a graph and forget the oldest; a cache that cannot be written changes nothing else."""
    with contextlib.suppress(UserError, OSError):
        write_atomic(path, blob)
        for stale in sorted(path.parent.glob(f"*{path.suffix}"), key=lambda each: each.stat().st_mtime)[:-KEEP]:
            stale.unlink(missing_ok=True)
