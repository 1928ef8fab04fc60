"""Writing files so that a reader sees the old one or the new one, never half of one.

Does not know what the files mean.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from controls.errors import UserError


def write_atomic(path: Path, data: str | bytes) -> None:
    """Write bytes, or text as UTF-8, completely or not at all; UserError when the disk or the folder refuses."""
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise UserError(f"Cannot write {path} ({error.strerror}); free space or choose another folder.") from error
