"""What many tests share: one thread, tiny networks, a tiny data set of moving pictures, and a tiny world on disk."""

import dataclasses
import io
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from controls.action import ActionSpec
from generator.checkpoint import WorldConfig, as_stored, save_weights
from generator.config import PRESETS, build, parallax_sizes
from generator.data.encoding import encode_dataset
from generator.model.dit import CausalDiT, DiTConfig
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.place_faces import ROUGH, TEXELS
from generator.tokenizer.place_map import CELL, FINEST, PlaceMap
from generator.tokenizer.refine import Refiner
from generator.tokenizer.vae import PRESETS as TOKENIZERS
from generator.tokenizer.vae import VideoVAE
from generator.training.helpers import save_tensors
from generator.training.parallax_files import begin_with

os.environ.setdefault("CI", "true")  # openvino's converter then sends no reports, which would wait for a network

SIZE, HFOV, FRAMES = (64, 64), 90.0, 69
PERIOD = 512.0  # map units, of the tiny place
SPLITS = ("train", "train", "held_map", "held_seed")


@pytest.fixture(autouse=True, scope="session")
def few_are_sought():
    """Stages that learn a place find few held-out pictures in it: each takes as long as a step."""
    from generator.training import place_learning

    before, place_learning.SOUGHT = place_learning.SOUGHT, 6
    yield
    place_learning.SOUGHT = before


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def still_one_thread():
    """Backends set the number of threads; every test begins with one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_dit():
    """A function that builds a tiny CausalDiT in float32, its weights shaken so that every part has a say."""

    def make(seed: int = 0, **changes) -> CausalDiT:
        sizes = {**PRESETS["debug"]["dit"], "window": 3, **changes}
        torch.manual_seed(seed)
        dit = CausalDiT(build(DiTConfig, sizes, "dit")).eval()
        shake = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in dit.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=shake))
        return dit

    return make


@pytest.fixture(scope="session")
def make_inputs():
    """A function that draws the inputs of a clip for a CausalDiT: noisy, recycled, t, actions, rays."""

    def make(dit: CausalDiT, frames: int, batch: int = 1, seed: int = 0) -> list[torch.Tensor]:
        c, g = dit.config, torch.Generator().manual_seed(seed)
        return [
            torch.randn(batch, frames, c.latent_channels, c.height, c.width, generator=g),
            torch.randn(batch, frames, c.recycled_channels, c.height, c.width, generator=g),
            torch.rand(batch, generator=g),
            torch.randn(batch, frames, c.ticks, c.action_fields, generator=g),
            torch.randn(batch, frames, c.ray_channels, c.height, c.width, generator=g),
        ]

    return make


def moving_pictures(clip: int, frames: int) -> np.ndarray:
    """uint8 (T, Y, X, 3): a coloured gradient that slides, in another colour for every clip."""
    width, height = SIZE
    t, y, x = np.mgrid[:frames, :height, :width]
    return np.stack([x * 3 + 4 * t, y * 3 + 50 * clip, (x + y) * 2 + t], -1).astype(np.uint8)


@pytest.fixture(scope="session")
def data_set(tmp_path_factory):
    """A tiny data set in the format on disk, with every split."""
    folder = tmp_path_factory.mktemp("data_set")
    (folder / "clips").mkdir()
    spec, entries = ActionSpec(), []
    for index, split in enumerate(SPLITS):
        rng, blobs = np.random.default_rng(index), []
        for picture in moving_pictures(index, FRAMES):
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
            blobs.append(buffer.getvalue())
        keys = rng.integers(0, 2, (FRAMES, len(spec.keys))).astype(np.uint8)
        look = rng.normal(0, 2, (FRAMES, 2)).astype(np.float32)
        keys[0], look[0] = 0, 0
        np.savez(
            folder / "clips" / f"{index:06d}.npz",
            jpeg=np.frombuffer(b"".join(blobs), np.uint8),
            offsets=np.cumsum([0, *map(len, blobs)], dtype=np.int64),
            keys=keys,
            look=look,
            pose=np.zeros((FRAMES, 5), np.float32),
        )
        entry = {"file": f"clips/{index:06d}.npz", "frames": FRAMES, "map": "M", "map_seed": 0, "theme": "t"}
        entries.append({**entry, "clip_seed": index, "split": split})
    meta = {"format": 1, "world": "test", "width": SIZE[0], "height": SIZE[1], "fps": 24, "hfov": HFOV, "seed": 0}
    meta |= {"action_spec": spec.to_dict(), "clips": entries}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


@pytest.fixture(scope="session")
def tiny_vae() -> VideoVAE:
    """The debug tokenizer with random weights, normalising as a trained one would."""
    torch.manual_seed(1)
    vae = VideoVAE(TOKENIZERS["debug"]).eval().requires_grad_(False)
    video = torch.from_numpy(moving_pictures(0, 21)).permute(0, 3, 1, 2)[None].float() / 127.5 - 1
    mean = vae.encode(video)[0]
    vae.shift.copy_(mean.mean((0, 1, 3, 4)))
    vae.scale.copy_(1 / mean.std((0, 1, 3, 4)).clamp_min(1e-3))
    return vae


@pytest.fixture(scope="session")
def tiny_parallax() -> Parallax:
    """The debug parallax with random weights that sees depth and walks far."""
    torch.manual_seed(2)
    parallax = Parallax(build(ParallaxConfig, {**parallax_sizes("debug"), "size": SIZE}, "parallax"))
    for parameter in parallax.parameters():
        parameter.requires_grad_(False).copy_(as_stored(3 * parameter).float())
    parallax.log_stretch.fill_(0.2)
    return parallax.eval()


def fill_cubes(place_map: PlaceMap, share: float = 0.02) -> None:
    """Random cubes of CELL, each of a colour of its own."""
    wide, high = int(CELL / FINEST), place_map.heights
    cells = place_map.cells // wide
    cubes = (torch.rand(cells, cells, high // wide) < share).nonzero()
    part = torch.cartesian_prod(*[torch.arange(wide)] * 3)
    row, column, level = (cubes[:, None] * wide + part).unbind(-1)
    colour = (torch.rand(len(cubes), 1, 3) * 2 - 1).expand(-1, len(part), -1)
    place_map.fill(((row * place_map.cells + column) * high + level).flatten(), colour.flatten(0, 1))


@pytest.fixture(scope="session")
def tiny_place(tiny_parallax) -> Parallax:
    """The tiny parallax in a place of its own, some of whose blocks have faces, and with a refiner that does much."""
    torch.manual_seed(5)
    made = Parallax(
        dataclasses.replace(tiny_parallax.config, period=PERIOD, checkered=True, levels=6, recall=0.4)
    ).requires_grad_(False)
    begin_with(made, tiny_parallax, "test")
    made.place.map.sky.fill(torch.rand(96, 720, 3)[::2, ::2] * 2 - 1)
    made.place.map.sky.palette.copy_(as_stored(made.place.map.sky.palette).float())
    fill_cubes(made.place.map)
    made.place.map.palette.copy_(as_stored(made.place.map.palette).float())
    made.place.map.spread()
    for parameter in made.ego.parameters():
        parameter.copy_(3 * parameter)
    faced = made.place.map.where[::3]
    codes = torch.randint(256, (len(faced), TEXELS**2))
    made.place.map.faces.fill(faced, torch.randint(ROUGH + 3, faced.shape), codes)
    made.config = dataclasses.replace(made.config, refine=8)
    made.refiner = Refiner(8, knows=True).requires_grad_(False)
    made.refiner.out.weight.copy_(0.1 * torch.randn(made.refiner.out.weight.shape))
    for parameter in [*made.place.parameters(), *made.ego.parameters(), *made.refiner.parameters()]:
        parameter.copy_(as_stored(parameter).float())
    return made.eval()


@pytest.fixture(scope="session")
def embodied():
    """A function that gives the same place with a body that nobody had to find."""
    return _embodied


def _embodied(parallax: Parallax, lines: int = 0) -> Parallax:
    made = Parallax(dataclasses.replace(parallax.config, bodily=True, lines=lines)).requires_grad_(False)
    begin_with(made, parallax, "test")
    body, generator = made.body, torch.Generator().manual_seed(9)
    if lines:
        body.relief.fill_(0)
        body.ends.copy_(torch.randint(int(PERIOD), body.ends.shape, generator=generator))
        body.bottom.copy_(torch.randint(0, 40, body.bottom.shape, generator=generator))
    else:
        body.relief.copy_(torch.where(torch.rand(body.relief.shape, generator=generator) < 0.002, 200, 24))
    body.stature.fill_(41.0)
    body.push.copy_(torch.rand(body.push.shape, generator=generator) - 0.5)
    body.lift.copy_(8 * torch.rand(body.lift.shape, generator=generator).round())
    body.fall.copy_(torch.tensor([1.125, -2.0, 1.0, -1.0]))
    body.changed()
    return made.eval()


@pytest.fixture(scope="session")
def tokenizer_run(tiny_vae, tmp_path_factory):
    """A folder as the tokenizer stage leaves it."""
    folder = tmp_path_factory.mktemp("tokenizer_run")
    meta = {"kind": "tokenizer", "config": tiny_vae.config.to_dict(), "step": 0}
    save_tensors(folder / "tokenizer.safetensors", tiny_vae.state_dict(), meta)
    return folder


@pytest.fixture(scope="session")
def parallax_run(tiny_parallax, tmp_path_factory):
    """A folder as the parallax stage leaves it."""
    folder = tmp_path_factory.mktemp("parallax_run")
    meta = {"kind": "parallax", "config": dataclasses.asdict(tiny_parallax.config), "step": 0}
    save_tensors(folder / "parallax.safetensors", tiny_parallax.state_dict(), meta)
    return folder


@pytest.fixture(scope="session")
def latents(tiny_vae, tiny_parallax, data_set, tmp_path_factory):
    """The data set, encoded, with its reprojections."""
    folder = tmp_path_factory.mktemp("latents")
    encode_dataset(tiny_vae, data_set, folder, torch.float32, reproject=True, parallax=tiny_parallax)
    return folder


@pytest.fixture(scope="session")
def make_world(tiny_vae, tiny_parallax, tiny_place, make_dit, tmp_path_factory):
    """A function that writes a tiny world's weights folder; it is a `place` if told."""

    def make(seed: int = 0, place: bool = False, **changes):
        parallax = tiny_place if place else tiny_parallax
        dit = make_dit(seed, **{"place_channels": tiny_place.place_channels if place else 0, **changes})
        folder = tmp_path_factory.mktemp("world")
        config = WorldConfig(
            "debug", SIZE, HFOV, 24, 4.0, "test", "test", tiny_vae.config, dit.config, ActionSpec(),
            parallax.config if dit.config.reproject else None,
        )  # fmt: skip
        save_weights(folder, config, tiny_vae, dit.state_dict(), parallax=parallax if config.parallax else None)
        return folder

    return make


@pytest.fixture(scope="session")
def world_folder(make_world):
    """The weights folder of one tiny world."""
    return make_world()


@pytest.fixture(scope="session")
def place_folder(make_world):
    """The weights folder of one tiny world that is a place."""
    return make_world(place=True)


class PlainDistance(torch.nn.Module):
    """Stands for LPIPS, whose weights a test machine may not have."""

    def forward(self, first, second):
        return (first - second).square().mean((1, 2, 3))


@pytest.fixture
def plain_distance(monkeypatch):
    """The decoder and refiner stages without the network that LPIPS needs."""
    monkeypatch.setattr("generator.training.decoder.Lpips", PlainDistance)
    monkeypatch.setattr("generator.training.refiner.Lpips", PlainDistance)


@pytest.fixture
def with_bf16(monkeypatch):
    """A processor that has bf16, or imitates it, so that torch's automatic backend is always the same."""
    monkeypatch.setattr("generator.runtime.select.computes_bf16", lambda kind: True)


@pytest.fixture(scope="session")
def led_by():
    """What leads a rollout of one clip, as `rollout.Conditions` has it, from F actions, ray maps and looks."""

    def conditions(actions, rays, look):
        parts = (torch.from_numpy(np.stack(part).astype(np.float32))[None] for part in (actions, rays, look))
        return SimpleNamespace(**dict(zip(("actions", "rays", "look"), parts, strict=True)), pace=None)

    return conditions


@pytest.fixture(scope="session")
def first_picture() -> np.ndarray:
    """A first frame of the tiny world's size."""
    return moving_pictures(3, 1)[0]
