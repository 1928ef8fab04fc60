"""Numbers of published networks out of PyPI packages that are installed but never imported.

The package's pickle is opened by a reader that admits numpy arrays and nothing else, after its SHA-256 is checked;
what is made of it is kept as safetensors in the user's cache.

Does not know what the numbers are for.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load, save_file
from torch import Tensor

from controls.errors import UserError

BUILDERS = {"_reconstruct": np.empty(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype}


class NumpyUnpickler(pickle.Unpickler):
    """Reads pickled numpy arrays in plain containers; anything else is an error."""

    def find_class(self, module: str, name: str) -> Any:
        """Only numpy's three array builders; UnpicklingError for every other name."""
        if module.split(".")[0] == "numpy" and name in BUILDERS:
            return BUILDERS[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of numbers")


def packaged_arrays(package: str, file: str, sha256: str, missing: str, version: str) -> Any:
    """The tree of arrays in an installed package's file; UserError (`missing`) without it, and when it is another."""
    found = importlib.util.find_spec(package)  # finds the folder; runs nothing of it
    places = list(found.submodule_search_locations or []) if found else []
    path = Path(places[0]) / file if places else None
    if path is None or not path.is_file():
        raise UserError(missing)
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UserError(f"{path} is not the file of {version}; install that version again.")
    return NumpyUnpickler(io.BytesIO(data)).load()


def cache_folder() -> Path:
    """Where converted weights are kept: FARSTEP_CACHE, else ~/.cache/farstep."""
    return Path(os.environ.get("FARSTEP_CACHE") or Path.home() / ".cache" / "farstep")


def converted(name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors kept under a name, or made and kept; the file's own SHA-256 stands beside it."""
    path = cache_folder() / f"{name}.safetensors"
    note = path.with_suffix(".sha256")
    kept = path.read_bytes() if path.is_file() and note.is_file() else b""
    if kept and hashlib.sha256(kept).hexdigest() == note.read_text().strip():
        return load(kept)
    weights = make()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        save_file(weights, part)
        note.write_text(hashlib.sha256(part.read_bytes()).hexdigest())
        os.replace(part, path)
    except OSError:
        pass  # a cache that cannot be written only costs the conversion next time
    return weights
