"""The generator process gives back what saving and going back has used: a walk of an hour saves 720 times."""

from __future__ import annotations

from multiprocessing import Pipe
from pathlib import Path

import numpy as np
from fake_world import SIZE, FakeWorld
from test_history import walk

from app import server
from app.protocol import Loaded, Rewind, Saved, SaveState, Stop


def test_what_saving_and_rewinding_used_is_given_back(tmp_path, monkeypatch):
    given: list[str] = []
    ours, theirs = Pipe()
    made = server._Server(theirs, FakeWorld(Path("x")), 64.0)
    monkeypatch.setattr(server, "give_back_memory", lambda: given.append("given"))
    made.world.reset(np.zeros((SIZE[1], SIZE[0], 3), np.uint8), 0)
    for action in walk(30):
        made.world.step(action)
    assert made.answer(SaveState(tmp_path / "place.state"))
    made.finish_saving()
    assert isinstance(ours.recv(), Saved) and given == ["given"]
    assert made.answer(Rewind(1, made.world.frame_index - 3))
    assert isinstance(ours.recv(), Loaded) and given == ["given"] * 2
    assert not made.answer(Stop())
