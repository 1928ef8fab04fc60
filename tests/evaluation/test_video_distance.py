"""FVD's figures: which windows are compared with which."""

import dataclasses
import json

import numpy as np
import pytest

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.evaluation import video_distance
from generator.evaluation.film_memory import FilmMemory
from generator.evaluation.frechet import frechet
from generator.evaluation.walker import Walker


def test_windows_are_dealt_by_turns_and_evenly(rolling_data):
    dataset = Dataset.open(rolling_data)  # two clips of 101 frames: six windows of 16 frames each
    whole = video_distance.deal(dataset, [0, 1], 16, 99)
    assert [(w.clip, w.start, w.end) for w in whole] == [(c, s, s + 17) for c in (0, 1) for s in range(0, 96, 16)]
    assert [w.judged for w in whole] == [False, True] * 6
    few = video_distance.deal(dataset, [0, 1], 16, 2)
    assert [(w.clip, w.start, w.judged) for w in few] == [(0, 0, False), (0, 16, True), (1, 0, False), (1, 16, True)]
    assert len(video_distance.deal(dataset, [0, 1], 32, 99)) == 6


def test_too_few_windows_are_a_sentence(rolling_data, still_data):
    with pytest.raises(UserError, match="needs 4 windows of 16 frames or more, and there are 2"):
        video_distance.deal(Dataset.open(still_data), [0], 16, 256)
    with pytest.raises(UserError, match="raise --windows"):
        video_distance.deal(Dataset.open(rolling_data), [0, 1], 16, 1)


@pytest.mark.parametrize("length", [16, 32])
def test_what_is_compared_with_what(debug_world, rolling_data, monkeypatch, tmp_path, length):
    """On mean colours instead of logits, which is quick; and again with what was kept, where only rollouts are new."""
    seen, said = [], []

    def colours(frames, network):
        assert frames.shape[:2] == (1, length)
        seen.append(frames.mean((1, 2, 3)))
        return seen[-1]

    monkeypatch.setattr(video_distance, "features", colours)
    dataset = Dataset.open(rolling_data)
    windows = video_distance.deal(dataset, [0, 1], length, 99)
    walker, memory = Walker(load_weights(debug_world)), FilmMemory(tmp_path / "films")
    made = video_distance.fvd_figures(walker, dataset, windows, None, said.append, memory)
    assert json.loads(json.dumps(made)) == made
    name = f"fvd.{length}"
    assert made[f"{name}.windows"] == len(windows) // 2 == {16: 6, 32: 3}[length]
    reference, real, rebuilt, free = (np.concatenate(seen[start::4]) for start in range(4))
    frames = [dataset.clip(w.clip).frames(w.start + 1, length).mean((0, 1, 2)) for w in windows]
    assert np.allclose(reference, frames[::2]) and np.allclose(real, frames[1::2])
    assert made[name] == frechet(free, reference) and made[f"{name}.floor"] == frechet(real, reference)
    assert made[f"{name}.ceiling"] == frechet(rebuilt, reference)
    assert made[f"{name}.paired"] == frechet(free, real)
    assert made[f"{name}.ceiling.paired"] == frechet(rebuilt, real)
    count = len(seen)
    assert len(list((tmp_path / "films").iterdir())) == 3 * len(windows) // 2
    assert video_distance.fvd_figures(walker, dataset, windows, None, said.append, memory) == made
    assert len(seen) == count + len(windows) // 2
    other = Walker(dataclasses.replace(walker.weights, hash="another world with this tokenizer"))
    assert video_distance.fvd_figures(other, dataset, windows, None, said.append, memory) == made
    assert len(seen) == count + 2 * (len(windows) // 2)
    kept = next((tmp_path / "films").iterdir())
    kept.write_bytes(kept.read_bytes()[:40])
    assert video_distance.fvd_figures(walker, dataset, windows, None, said.append, memory) == made, "damaged: anew"
