"""The parallax stage: it learns depth and pace from walks, resumes exactly, and refuses what does not fit."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from controls.errors import UserError
from generator.checkpoint import load_weights
from generator.data.clips import Dataset
from generator.data.encoding import encode_dataset
from generator.data.latents import PLAN, LatentClips, parallax_hash
from generator.tokenizer.body import UNKNOWN
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.training import adaptation, parallax
from generator.training.body_learning import stood_on
from generator.training.ego_learning import ego_motion, walk_of
from generator.training.helpers import step_rng
from generator.training.known_depth import know_depth
from generator.training.parallax import ParallaxTraining, load_parallax, open_run, train
from generator.training.place_faces import face_place
from generator.training.place_map import map_place
from generator.training.windows import to_video

SAMPLE = Path(__file__).parent.parent / "data" / "sample"


def settings(folder: Path, **changes) -> ParallaxTraining:
    config = ParallaxTraining(str(folder), preset="debug", steps=6, batch=2, walks=2, ego_from=0.5, device="cpu")
    return dataclasses.replace(config, **changes)


def same(a: Path, b: Path) -> bool:
    one, two = (load_parallax(folder).state_dict() for folder in (a, b))
    return all(torch.equal(value, two[name]) for name, value in one.items())


def test_a_run_that_was_cut_ends_as_one_that_was_not(data_set, tmp_path):
    config = settings(data_set)
    train(config, tmp_path / "whole", quiet=True)
    for stop in (2, 4, None):  # within the depth, within the ego-motion
        train(config, tmp_path / "cut", stop_after=stop, quiet=True)
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert not same(tmp_path / "whole", _first(data_set, tmp_path))


def _first(data_set: Path, tmp_path: Path) -> Path:
    train(settings(data_set, steps=1), tmp_path / "first", quiet=True)
    return tmp_path / "first"


def test_the_depth_trains_first_and_then_rests(data_set, tmp_path):
    run = open_run(settings(data_set), tmp_path / "run")
    before = {name: value.clone() for name, value in run.parallax.state_dict().items()}
    parallax.depth_step(run, 0.0)
    middle = {name: value.clone() for name, value in run.parallax.state_dict().items()}
    parallax.ego_step(run, 0.6)
    after = run.parallax.state_dict()
    changed = {n for n in before if not torch.equal(before[n], middle[n])}
    assert changed and all(n.startswith("depth.") or n == "log_stretch" for n in changed)
    changed = {n for n in before if not torch.equal(middle[n], after[n])}
    assert changed and all(n.startswith("ego.") for n in changed)


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A short run on the bundled sample of Halls."""
    folder = tmp_path_factory.mktemp("taught")
    config = ParallaxTraining(str(SAMPLE), preset="debug", steps=160, batch=4, walks=1, lr=4e-3, ego_from=0.5)
    train(config, folder, quiet=True)
    return open_run(config, folder)


@torch.no_grad()
def test_it_learns_depth_from_a_few_seconds_of_walking(taught):
    """Pictures moved by what it saw come nearer to those that the engine drew than pictures that only turned."""
    pairs = parallax.draw_pairs(taught, "train", 24, step_rng(1, 0))
    seen = taught.parallax.perceive(pairs.first)
    walked = parallax.moved(taught, pairs, seen)[0]
    turned = taught.turn.views(pairs.first, pairs.look, torch.zeros_like(pairs.moves), seen)[:, 1]
    error, without = ((view - pairs.second).abs().mean() for view in (walked, turned))
    assert error < 0.9 * without
    assert 1.0 < taught.parallax.stretch < 1.4, "the engine's pixels are 1.2 times as tall as wide"


@torch.no_grad()
def test_it_learns_how_far_keys_carry(taught):
    made, true = ego_motion(taught, taught.data.select("train"))
    assert (made - true)[..., :2].norm(dim=-1).mean() < 0.7 * true[..., :2].norm(dim=-1).mean()


def test_pairs_are_near_one_another_and_their_poses_agree(taught):
    pairs = parallax.draw_pairs(taught, "train", 16, step_rng(2, 0))
    assert pairs.first.shape == pairs.second.shape == (16, 3, 160, 256)
    assert pairs.look.shape == (16, 1, 2) and pairs.moves.shape == (16, 1, 3)
    assert pairs.look[..., 0].abs().max() <= parallax.WIDEST
    assert (pairs.moves.norm(dim=-1) > 0.1).float().mean() > 0.6


def test_latents_remember_the_parallax_that_made_them(data_set, tiny_vae, tiny_parallax, tokenizer_run, tmp_path):
    out, latents = tmp_path / "latents", tmp_path / "turned"
    encode_dataset(tiny_vae, data_set, latents, torch.float32, reproject=True)
    shutil.copytree(latents, out)
    before = (out / "000000.npz").stat().st_mtime_ns
    encode_dataset(tiny_vae, data_set, out, torch.float32, reproject=True, parallax=tiny_parallax)
    moved, turned = LatentClips(out, "train"), LatentClips(latents, "train")
    assert (out / "000000.npz").stat().st_mtime_ns > before
    assert moved.parallaxes == {parallax_hash(tiny_parallax)} and turned.parallaxes == {""}
    assert np.array_equal(moved.clips[0]["latents"], turned.clips[0]["latents"])
    assert not np.array_equal(moved.clips[0]["ahead"], turned.clips[0]["ahead"])
    batch = moved.gather([(0, 3), (1, 0)], 4)
    assert batch.pace.shape == (2, 8) and batch.pace[0].abs().sum() > 0 and batch.pace[1].abs().sum() == 0
    before = (out / "000000.npz").stat().st_mtime_ns
    encode_dataset(tiny_vae, data_set, out, torch.float32, reproject=True, parallax=tiny_parallax)
    assert (out / "000000.npz").stat().st_mtime_ns == before
    config = adaptation.AdaptationTraining(
        latents=str(out), tokenizer=str(tokenizer_run), preset="debug", steps=1, batch=1, frames=4, device="cpu"
    )
    with pytest.raises(UserError, match="another parallax"):
        adaptation.train(config, tmp_path / "run", quiet=True)


def test_several_workers_encode_what_one_does(data_set, tiny_vae, tiny_parallax, tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        how = {"reproject": True, "parallax": tiny_parallax, "workers": workers}
        encode_dataset(tiny_vae, data_set, tmp_path / name, torch.float32, **how)
    for path in sorted((tmp_path / "one").glob("*.npz")):
        with np.load(path) as one, np.load(tmp_path / "two" / path.name) as two:
            assert all(np.array_equal(one[name], two[name]) for name in one.files)


def test_clips_together_are_encoded_as_one_by_one(data_set, tiny_vae, tiny_place, tmp_path):
    """In groups smaller than, as large as and larger than a split, and going on from some that are there."""
    how = {"reproject": True, "parallax": tiny_place}
    encode_dataset(tiny_vae, data_set, tmp_path / "1", torch.float32, **how)
    shutil.copytree(tmp_path / "1", tmp_path / "64")
    (tmp_path / "64" / "000001.npz").unlink()
    for together in (2, 64):
        encode_dataset(tiny_vae, data_set, tmp_path / str(together), torch.float32, together=together, **how)
        for path in sorted((tmp_path / "1").glob("*.npz")):
            with np.load(path) as one, np.load(tmp_path / str(together) / path.name) as two:
                assert one.files == two.files and str(one["by"]) == str(two["by"])
                for name in set(one.files) - {"by"}:
                    near = np.isclose(
                        one[name], two[name], atol=1e-2
                    ).mean()  # a ray at an edge may fall on either side
                    assert near > 0.95, (name, near)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kept": True}, "--start"),
        ({"ego_from": -0.1}, "from 0 to below 1"),
        ({"ego_from": 1.0}, "from 0 to below 1"),
        ({"steps": 0}, "has no end"),
        ({"preset": "debgu"}, "debug"),
        ({"data": "nowhere"}, "No data set"),
    ],
)
def test_settings_that_do_not_fit(data_set, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        train(settings(data_set, **changes), tmp_path / "run", quiet=True)


def test_a_run_of_another_size_is_refused(data_set, tmp_path):
    train(settings(data_set, steps=1), tmp_path / "run", quiet=True)
    with pytest.raises(UserError, match="another size"):
        train(settings(data_set, preset="pocket"), tmp_path / "run", quiet=True)


def test_a_data_set_without_training_clips_is_refused(data_set, tmp_path):
    folder = tmp_path / "held"
    shutil.copytree(data_set, folder)
    meta = json.loads((folder / "meta.json").read_text())
    for clip in meta["clips"]:
        clip["split"] = "held_seed"
    (folder / "meta.json").write_text(json.dumps(meta))
    assert not Dataset.open(folder).select("train")
    with pytest.raises(UserError, match="no training clips"):
        train(settings(folder), tmp_path / "run", quiet=True)


def test_a_file_that_holds_no_parallax(tokenizer_run):
    with pytest.raises(UserError, match="holds no parallax"):
        load_parallax(tokenizer_run / "tokenizer.safetensors")


def test_an_encoding_that_was_cut_short_is_not_taken_for_a_whole_one(
    data_set, tiny_vae, tiny_parallax, tokenizer_run, parallax_run, latents, tmp_path
):
    """A bug: the folder's word was taken for what its clips hold, and it was given before they were encoded."""
    out = tmp_path / "latents"
    encode_dataset(tiny_vae, data_set, out, torch.float32, reproject=True)
    shutil.copy(latents / "000000.npz", out / "000000.npz")
    assert LatentClips(out, "train").parallaxes == {"", parallax_hash(tiny_parallax)}
    config = adaptation.AdaptationTraining(
        latents=str(out), tokenizer=str(tokenizer_run), parallax=str(parallax_run), preset="debug", steps=1, batch=1,
        frames=4, device="cpu",
    )  # fmt: skip
    with pytest.raises(UserError, match="another parallax"):
        adaptation.train(config, tmp_path / "run", quiet=True)


def test_a_worlds_parallax_is_one_to_begin_from(data_set, world_folder, make_world, tmp_path):
    """Weights folders serve where a run's folder does; a world without a parallax is refused."""
    begun = load_weights(world_folder).parallax
    assert begun is not None
    for name, value in load_parallax(world_folder).state_dict().items():
        assert torch.equal(value, begun.state_dict()[name])
    config = ParallaxTraining(data=str(data_set), preset="debug", start=str(world_folder), steps=1, device="cpu")
    run = open_run(config, tmp_path / "run")
    assert all(torch.equal(v, begun.state_dict()[n]) for n, v in run.parallax.state_dict().items())
    with pytest.raises(UserError, match="no parallax"):
        load_parallax(make_world(reproject=False))


def test_known_depth_teaches_and_resumes(houses, tmp_path):
    """Of maps of our own: the error falls, the stretch is the engine's, and two steps and four are six."""
    config = ParallaxTraining(
        str(houses), preset="pocket", steps=6, batch=4, walks=2, ego_from=0.7, known=12, device="cpu", log_every=1
    )
    train(config, tmp_path / "whole", quiet=True)
    train(config, tmp_path / "parts", stop_after=2, quiet=True)
    train(config, tmp_path / "parts", quiet=True)
    assert same(tmp_path / "whole", tmp_path / "parts")
    assert load_parallax(tmp_path / "whole").stretch.item() == pytest.approx(1.2, rel=1e-2)
    rows = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    near = [row["near"] for row in rows if "near" in row]
    assert len(near) == 5 and near[-1] < near[0]


def test_the_ego_motion_alone_may_learn_in_a_place_that_is_kept(data_set, place_folder, tmp_path):
    before = load_parallax(place_folder)
    sizes = {"period": before.config.period, "checkered": True, "levels": before.config.levels, "recall": 0.4}
    config = settings(data_set, start=str(place_folder), ego_from=0.0, kept=True, bodily=False, **sizes)
    train(config, tmp_path, stop_after=3, quiet=True)
    old, new = before.state_dict(), load_parallax(tmp_path).state_dict()
    changed = {name for name, tensor in new.items() if not torch.equal(tensor, old[name])}
    assert {name.split(".")[0] for name in changed} == {"ego", "place"}
    assert {name for name in changed if name.startswith("place.")} <= {"place.ground", "place.floor", "place.map.eye"}


def test_a_body_is_found_at_once_in_a_place_that_is_kept(data_set, place_folder, tmp_path):
    """Nothing is learned in steps then, and the same command again changes nothing."""
    before = load_parallax(place_folder)
    sizes = {"period": before.config.period, "checkered": True, "levels": before.config.levels, "recall": 0.4}
    config = settings(data_set, start=str(place_folder), ego_from=0.0, kept=True, **sizes)
    train(config, tmp_path / "body", quiet=True)
    made, old = load_parallax(tmp_path / "body"), before.state_dict()
    assert made.ego is None and made.body is not None and (made.body.relief != UNKNOWN).any()
    changed = {name for name, value in made.state_dict().items() if name in old and not torch.equal(value, old[name])}
    assert changed <= {"place.ground", "place.floor", "place.map.eye"}
    rows = [json.loads(line) for line in (tmp_path / "body" / "metrics.jsonl").read_text().splitlines()]
    assert {"body_off", "body_free"} <= set(rows[0]) and rows[-1]["ego_error"] >= 0
    train(config, tmp_path / "body", quiet=True)
    again = load_parallax(tmp_path / "body").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in made.state_dict().items())


def test_a_place_learns_its_map_then_its_body_and_then_to_be_found(data_set, place_folder, tmp_path):
    before = load_parallax(place_folder)
    sizes = {"period": before.config.period, "checkered": True, "levels": before.config.levels, "recall": 0.4}
    config = settings(data_set, start=str(place_folder), mapped=4, **sizes)
    train(config, tmp_path / "whole", quiet=True)
    train(config, tmp_path / "parts", stop_after=4, quiet=True)
    train(config, tmp_path / "parts", quiet=True)
    assert same(tmp_path / "whole", tmp_path / "parts")
    made = load_parallax(tmp_path / "whole").state_dict()
    assert any(
        not torch.equal(made[name], value)
        for name, value in before.place.localiser.state_dict(prefix="place.localiser.").items()
    )


def test_walks_that_were_looked_at_before_the_map_was_made_are_told_of_it_after(data_set, place_folder, tmp_path):
    """The bug: an evaluation at the step on which the map is made kept what the map had said before."""
    before = load_parallax(place_folder)
    sizes = {"period": before.config.period, "checkered": True, "levels": before.config.levels, "recall": 0.4}
    run = open_run(settings(data_set, start=str(place_folder), mapped=4, bodily=False, **sizes), tmp_path)
    old = walk_of(run, 0)[1].clone()
    parallax.make_map(run)
    where = torch.from_numpy(run.clip(0).pose[:-1:4][:, PLAN]).float()[: len(old) // 4]
    assert torch.equal(walk_of(run, 0)[1][::4], run.parallax.told(None, where))
    assert not torch.equal(old, walk_of(run, 0)[1]), "the new map is another one"


def test_known_pictures_are_drawn_with_their_depth(houses):
    known = know_depth(Dataset.open(houses), "train", 9, 0)
    assert known.pictures.shape[1:] == (160, 256, 3) and known.nearness.shape == (len(known.pictures), 40, 64)
    assert (known.nearness > 0).mean() > 0.4 and 1 / known.nearness.max() >= 5
    pictures, near, pitch = known.draw(4, 64.0, np.random.default_rng(0))
    assert pictures.shape == (4, 3, 160, 256) and near.shape == (4, 1, 40, 64) and pitch.shape == (4,)
    untouched = know_depth(Dataset.open(houses), "train", 9, 0)
    assert np.array_equal(known.pictures, untouched.pictures)


def test_depth_of_other_worlds_is_not_known(data_set, tmp_path):
    with pytest.raises(UserError, match="halls and still maps only"):
        open_run(settings(data_set, known=4), tmp_path)


def test_a_map_by_true_depth_looks_as_the_recordings_do(houses):
    """What the engine drew, its poses and the rays of the map agree: a view beside it is less like the picture."""
    data = Dataset.open(houses)
    walked = np.concatenate([stood_on(data.clip(index).pose) for index in data.select("train")])
    period = 64.0 * np.ceil(np.ptp(walked[:, :2], axis=0).max() / 64) + 512
    parallax = Parallax(ParallaxConfig(size=data.size, period=float(period), levels=10)).requires_grad_(False)
    parallax.log_stretch.fill_(float(np.log(1.2)))
    parallax.place.remember(torch.from_numpy(walked).float())
    map_place(parallax, data, 60, np.random.default_rng(0), known=True)
    edge, errors, others = float(np.tan(np.deg2rad(data.meta["hfov"]) / 2)), [], []
    for index in data.select("train"):
        clip = data.clip(index)
        for frame in (0, 20, 40):
            picture = to_video(clip.frames(frame, 1))
            pose = torch.from_numpy(clip.pose[frame, PLAN]).float()[None]
            for turn, found in ((0.0, errors), (12.0, others)):
                view = parallax.place.map.view(pose + torch.tensor([0, 0, turn, 0, 0]), edge, 1.2, 160, 256)[:, :3]
                found.append(float((view - picture).square().mean()))
    assert np.mean(errors) < 0.6 * np.mean(others), (np.mean(errors), np.mean(others))
    assert 1000 < len(parallax.place.map.where) < parallax.place.map.blocks / 4


def test_faces_make_views_more_like_the_recordings(houses):
    """Of the recordings themselves; each block keeps its place, and the palette is of both."""
    data = Dataset.open(houses)
    walked = np.concatenate([stood_on(data.clip(index).pose) for index in data.select("train")])
    period = 64.0 * np.ceil(np.ptp(walked[:, :2], axis=0).max() / 64) + 512
    parallax = Parallax(ParallaxConfig(size=data.size, period=float(period), levels=10)).requires_grad_(False)
    parallax.place.remember(torch.from_numpy(walked).float())
    map_place(parallax, data, 60, np.random.default_rng(0), known=True)
    place_map, rng = parallax.place.map, np.random.default_rng(1)
    where = place_map.where.clone()
    face_place(parallax.place, 1.2, data, 40, rng, 10_000)
    assert torch.equal(place_map.where, where) and len(place_map.faces.at) > 100
    edge, off = float(np.tan(np.deg2rad(data.meta["hfov"]) / 2)), {False: [], True: []}
    for index in data.select("train"):
        clip = data.clip(index)
        for frame in (5, 20, 35):
            picture, pose = to_video(clip.frames(frame, 1)), torch.from_numpy(clip.pose[frame, PLAN]).float()[None]
            for fine, found in off.items():
                found.append(float((place_map.view(pose, edge, 1.2, 160, 256, fine)[:, :3] - picture).abs().mean()))
    assert np.mean(off[True]) < 0.95 * np.mean(off[False]), {name: np.mean(values) for name, values in off.items()}


def test_who_rises_or_falls_does_not_stand():
    pose = np.zeros((6, 5), np.float32)
    pose[:, 2] = [105, 105, 105, 113, 118, 105.05]
    assert stood_on(pose)[:, 2].tolist() == [np.inf, 105, np.inf, np.inf, np.inf, np.inf]
