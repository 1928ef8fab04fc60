"""The fakes are imported by name, in the child process too; the screen is larger than the dummy driver's."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("SDL_AUDIODRIVER", "dummy")
for folder in (Path(__file__).parent, Path(__file__).parents[2]):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


@pytest.fixture(autouse=True)
def screen() -> Iterator[None]:
    """A full HD screen."""
    import pygame

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pygame.display, "get_desktop_sizes", lambda: [(1920, 1080)])
        yield
