"""A debug world with random weights and a small data set of its picture size, made of synthetic rooms."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from controls.action import ActionSpec
from generator.checkpoint import load_weights, save_weights
from generator.data.clips import FORMAT, Clip, to_jpeg, write_clip
from generator.evaluation.latency import random_weights

HFOV, SIZE = 90.0, 64


def load_synthetic():
    """tests/evaluation/synthetic.py as a module (tests are no package)."""
    if "synthetic_rooms" not in sys.modules:
        found = importlib.util.spec_from_file_location("synthetic_rooms", Path(__file__).with_name("synthetic.py"))
        module = importlib.util.module_from_spec(found)
        sys.modules["synthetic_rooms"] = module
        found.loader.exec_module(module)
    return sys.modules["synthetic_rooms"]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def rooms():
    return load_synthetic()


@pytest.fixture(scope="session")
def debug_world(tmp_path_factory):
    """A weights folder of the debug preset with random numbers."""
    weights = random_weights("debug")
    config = dataclasses.replace(weights.config, hfov=HFOV)
    folder = tmp_path_factory.mktemp("world")
    save_weights(folder, config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax)
    return folder


def write_dataset(folder, looks, frames):
    """A data set whose clips turn by `looks` (degrees per tick) and show `frames` (a list of (T, Y, X, 3))."""
    spec, entries = ActionSpec(), []
    for number, (look, pictures) in enumerate(zip(looks, frames, strict=True)):
        blobs = [to_jpeg(Image.fromarray(p)) for p in pictures]
        offsets = np.cumsum([0, *map(len, blobs)]).astype(np.int64)
        pose = np.zeros((len(pictures), 5), np.float32)
        pose[:, 3:] = np.cumsum(look, axis=0)
        keys = np.zeros((len(pictures), len(spec.keys)), np.uint8)
        clip = Clip(keys, look.astype(np.float32), pose, np.frombuffer(b"".join(blobs), np.uint8), offsets)
        name = f"clips/{number:06d}.npz"
        write_clip(folder / name, clip)
        entries.append(
            {"file": name, "frames": len(pictures), "map": "M", "map_seed": 0, "theme": "t", "clip_seed": number,
             "split": "held_seed"}
        )  # fmt: skip
    height, width = frames[0].shape[1:3]
    meta = {"format": FORMAT, "world": "rooms", "width": width, "height": height, "fps": 24, "hfov": HFOV, "seed": 0,
            "action_spec": spec.to_dict(), "clips": entries}  # fmt: skip
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="session")
def turning_data(tmp_path_factory, rooms):
    """Two clips of 101 frames that look around a synthetic room."""
    looks, clips = [], []
    for seed in range(2):
        look = np.zeros((101, 2))
        look[1:, 0] = 4 * np.sin(np.arange(100) / 6 + seed)
        look[1:, 1] = 0.3 * np.cos(np.arange(100) / 9)
        turns = np.cumsum(look, axis=0)
        looks.append(look)
        clips.append(np.stack([rooms.room(SIZE, SIZE, HFOV, yaw, up, seed=seed) for yaw, up in turns]))
    return write_dataset(tmp_path_factory.mktemp("turning"), looks, clips)


@pytest.fixture(scope="session")
def rolling_data(tmp_path_factory, rooms):
    """Two clips of 101 frames of a coloured pattern that rolls by: quick to make."""
    clips = []
    for seed in range(2):
        pattern = (255 * rooms.smooth_noise((SIZE, 4 * SIZE, 3), seed)).astype(np.uint8)
        clips.append(np.stack([np.roll(pattern, -2 * k, 1)[:, :SIZE] for k in range(101)]))
    return write_dataset(tmp_path_factory.mktemp("rolling"), [np.zeros((101, 2))] * 2, clips)


@pytest.fixture(scope="session")
def still_data(tmp_path_factory, rooms):
    """One clip of 33 frames in which nothing moves."""
    frames = np.repeat(rooms.room(SIZE, SIZE, HFOV, 0.0)[None], 33, axis=0)
    return write_dataset(tmp_path_factory.mktemp("still"), [np.zeros((33, 2))], [frames])


@pytest.fixture
def teacher_world(debug_world, tmp_path):
    """The debug world as the adaptation stage leaves it."""
    weights = load_weights(debug_world)
    config = dataclasses.replace(weights.config, stage="adaptation")
    save_weights(tmp_path, config, weights.tokenizer, weights.dit.state_dict(), parallax=weights.parallax)
    return tmp_path
