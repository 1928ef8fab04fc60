"""Place: waves that repeat as the place does, a pose that goes where the camera goes, a world that is told of it."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from controls import camera
from controls.action import ActionSpec
from controls.errors import UserError
from generator.checkpoint import save_weights
from generator.config import build, parallax_sizes
from generator.data.clips import Dataset
from generator.data.encoding import encode_dataset
from generator.data.latents import LatentClips, parallax_hash
from generator.rollout import open_eye, rollout
from generator.tokenizer.parallax import Parallax, ParallaxConfig
from generator.tokenizer.place import Place, place_channels
from generator.tokenizer.place_map import CHANNELS
from generator.tokenizer.reproject import Reprojector
from generator.training import adaptation, decoder, parallax
from generator.training.begin import with_place
from generator.training.dit_run import corrupt_history
from generator.training.helpers import step_generator
from generator.training.parallax_files import begin_with

PERIOD, EDGE = 512.0, 1.2  # the period of the tiny place
number = st.floats(-2000, 2000, allow_nan=False, width=32)


@pytest.fixture(scope="module")
def place():
    torch.manual_seed(4)
    return Place(PERIOD, True).eval()


@pytest.fixture(scope="module")
def place_latents(tiny_vae, tiny_place, data_set, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place_latents")
    encode_dataset(tiny_vae, data_set, folder, torch.float32, reproject=True, parallax=tiny_place)
    return folder


@pytest.mark.parametrize("checkered", [False, True])
def test_waves_repeat_as_the_place_does(checkered):
    place, here = Place(PERIOD, checkered), torch.tensor([[31.0, 170.0]])
    waves = place.waves(here)
    for step in ((PERIOD, 0), (0, PERIOD), (-3 * PERIOD, 2 * PERIOD)):
        torch.testing.assert_close(place.waves(here + torch.tensor(step)), waves, atol=1e-3, rtol=0)
    half = (place.waves(here + PERIOD / 2) - waves).abs().max()
    assert half < 1e-3 if checkered else half > 1
    for step in ((PERIOD / 2, 0), (0, PERIOD / 2), (PERIOD / 4, PERIOD / 4)):
        assert (place.waves(here + torch.tensor(step)) - waves).abs().max() > 1


@given(number, number, number, st.lists(st.tuples(number, number, number), min_size=1, max_size=4))
def test_a_pose_goes_where_the_camera_goes(x, y, yaw, ticks):
    place, pose = Place(PERIOD, False), np.array([x, y, 0.0, yaw, 0.0])
    for turn, forward, right in ticks:
        pose = camera.advance(pose, (turn / 100, 0), (forward / 100, right / 100, 0))
    look = torch.tensor([[[turn / 100, 0] for turn, _, _ in ticks]])
    moves = torch.tensor([[[forward / 100, right / 100, 0] for _, forward, right in ticks]])
    made, done = place.advance(torch.tensor([[x, y, yaw, 0.0, 0.0]]), look, moves)
    torch.testing.assert_close(done, moves, atol=1e-3, rtol=1e-3)
    assert 0 <= made[0, 0] <= PERIOD and 0 <= made[0, 1] <= PERIOD and 0 <= made[0, 2] <= 360
    found = place.distances(made, torch.tensor(pose[[0, 1, 3]]).float()[None])
    assert found["place_half"] < 0.05 and found["heading_half"] < 0.05
    path = place.path(torch.tensor([[x, y, yaw, 0.0, 0.0]]), look, done)
    assert path.shape == (1, len(ticks), 5)
    found = place.distances(path[:, -1], made)
    assert found["place_half"] < 0.05 and found["heading_half"] < 0.05 and float(path[0, -1, 3]) == 0.0


def test_a_jump_ends_on_the_floor_that_recorded_walks_stood_on():
    """A corridor eastwards with a pool 16 lower in its second half; somebody jumps in its first."""
    place = Place(PERIOD, False, levels=6)
    assert place.standing(torch.tensor([100.0, 104.0])) == 0.0 == place.map.eye
    east = torch.arange(0, PERIOD, 8.0)
    height = torch.where(east < 256, 105.0, 89.0)
    height[:8] = torch.inf  # in the air
    place.remember(torch.stack([east, torch.full_like(east, 104.0), height], dim=1))
    at = torch.tensor([[100.0, 104.0], [100.0, 130.0], [300.0, 104.0], [8.0, 104.0], [100.0, 300.0]])
    assert place.standing(at).tolist() == [105.0, 105.0, 89.0, 89.0, 89.0], "the lower of the cells beside, the usual"
    assert place.map.eye == 89.0
    pose, look = torch.tensor([[100.0, 104.0, 0.0, 0.0, 105.0]]), torch.zeros(1, 4, 2)

    def go(pose, lifts, ahead=0.0):
        moves = torch.tensor([[[ahead, 0.0, lift] for lift in lifts]])
        pose, made = place.advance(pose, look, moves)
        start = pose - torch.nn.functional.pad(made.sum(1)[:, 2:], (4, 0))
        torch.testing.assert_close(place.path(start, look, made)[0, -1, 4], pose[0, 4])
        return pose

    pose = go(pose, [9.0, 5.0, 1.0, -3.0])
    assert pose[0, 4] == 117.0
    assert go(pose, [-7.0, -11.0, -3.0, 0.0])[0, 4] == 105.0, "nobody sinks into the floor"
    assert go(pose, [0.0] * 4)[0, 4] == 105.0 and go(pose, [0.0, 9.0, -9.0, 0.0])[0, 4] == 105.0
    pool = go(torch.tensor([[230.0, 104.0, 0.0, 0.0, 105.0]]), [0.0] * 4, ahead=12.0)
    assert pool[0, 4] == 93.0 and go(pool, [0.0] * 4)[0, 4] == 89.0, "two ticks of falling, and the rest"
    assert go(pool, [0.0] * 4, ahead=-20.0)[0, 4] == 105.0


def test_nobody_walks_up_what_has_to_be_jumped_on():
    place = Place(PERIOD, False)
    east, north = torch.arange(0, PERIOD, 8.0), torch.full((64,), 104.0)
    place.remember(torch.stack([east, north, torch.where(east < 256, 105.0, 137.0)], dim=1))
    look, ahead = torch.zeros(1, 4, 2), torch.tensor([[[20.0, 0.0, 0.0]] * 4])
    on_foot, made = place.advance(torch.tensor([[200.0, 104.0, 0.0, 0.0, 105.0]]), look, ahead)
    assert on_foot[0, [0, 4]].tolist() == [240.0, 105.0] and made[0, :, 0].tolist() == [20.0, 20.0, 0.0, 0.0]
    jumped, _ = place.advance(torch.tensor([[200.0, 104.0, 0.0, 0.0, 115.0]]), look, ahead + torch.tensor([0, 0, 1.0]))
    assert jumped[0, [0, 4]].tolist() == [280.0, 138.0]
    above = torch.tensor([[300.0, 104.0, 180.0, 0.0, 137.0]])
    assert place.advance(above, look, ahead)[0][0, [0, 4]].tolist() == [220.0, 125.0], "down one may always go"


def test_nobody_walks_off_the_ground_that_recorded_walks_know():
    """A corridor eastwards: forward goes on, into its wall one slides along it, and straight at it one stands."""
    place = Place(PERIOD, False)
    place.remember(torch.stack([torch.arange(0, PERIOD, 8.0), torch.full((64,), 104.0)], dim=1))
    inside = place.stands(torch.tensor([[200.0, 104.0], [200.0, 90.0], [200.0, 120.0], [200.0, 70.0], [200.0, 140.0]]))
    assert inside.tolist() == [True, True, True, False, False]
    look, east = torch.zeros(1, 1, 2), torch.tensor([[200.0, 104.0, 0.0, 0.0, 0.0]])
    ahead = torch.tensor([[[100.0, 0.0, 3.0]]])
    pose, made = place.advance(east, look, ahead)
    assert pose[0].tolist() == [300.0, 104.0, 0.0, 0.0, 3.0] and torch.equal(made, ahead)
    turned = torch.tensor([[200.0, 104.0, 45.0, 0.0, 0.0]])  # to the south-east
    pose, made = place.advance(turned, look, ahead)
    torch.testing.assert_close(pose, torch.tensor([[200.0 + 100 / 2**0.5, 104.0, 45.0, 0.0, 3.0]]))
    torch.testing.assert_close(made, torch.tensor([[[50.0, -50.0, 3.0]]]))
    south = torch.tensor([[200.0, 104.0, 90.0, 0.0, -3.0]])
    pose, made = place.advance(south, look, ahead)
    torch.testing.assert_close(pose[:, :4], south[:, :4], atol=1e-3, rtol=0)
    lost = torch.tensor([[200.0, 300.0, 90.0, 0.0, 0.0]])  # who stands where nobody stood may leave
    assert place.advance(lost, look, ahead)[0][0, 1] < 201


def test_a_pose_is_found_where_its_waves_are(place, monkeypatch):
    torch.manual_seed(0)
    pose = torch.rand(6, 3) * torch.tensor([PERIOD, PERIOD, 360.0])
    monkeypatch.setattr(place.localiser, "forward", lambda pictures: place.aim(pose))
    found = place.distances(place.locate(torch.zeros(6, 3, 64, 64)), pose)
    assert found["place_most"] <= 4.0 and found["heading_most"] <= 0.6
    assert place.distances(pose + torch.tensor([PERIOD / 2, PERIOD / 2, 90.0]), pose)["heading_half"] == 90.0


def test_channels_say_what_stands_along_a_column(place):
    """Facing east in the middle column, what is asked for lies to the east; turned by a quarter, to the south."""
    for yaw, way in ((0.0, (1.0, 0.0)), (90.0, (0.0, -1.0)), (180.0, (-1.0, 0.0))):
        told = place.channels(torch.tensor([[40.0, 60.0, yaw, 0.0]]), EDGE, 1.2, 4, 5)[0]
        assert told.shape == (place_channels(PERIOD, True), 4, 5)
        far = place.waves(torch.tensor([40.0 + 256 * way[0], 60.0 + 256 * way[1]]), 12)
        first = 2 * 16 + 6 + 24  # where one stands, headings, the nearest distance
        torch.testing.assert_close(told[first : first + 24, 0, 2], far, atol=1e-3, rtol=0)
        assert torch.equal(told[:, 0], told[:, 3])


def test_a_place_keeps_its_precision_in_bf16(place):
    pose, rough = torch.tensor([[477.3, 12.9, 271.5, 3.0]]), Place(PERIOD, True).to(torch.bfloat16)
    assert torch.equal(rough.channels(pose, EDGE, 1.2, 4, 4), place.channels(pose, EDGE, 1.2, 4, 4))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(place.channels(pose, EDGE, 1.2, 4, 4), rough.channels(pose, EDGE, 1.2, 4, 4))


def test_a_parallax_moves_as_before_when_it_gets_to_know_a_place(tiny_parallax):
    placed = Parallax(dataclasses.replace(tiny_parallax.config, period=PERIOD, checkered=True)).requires_grad_(False)
    begin_with(placed, tiny_parallax, "test")
    picture, actions = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 4, 10)
    seen, look = tiny_parallax.perceive(picture), torch.ones(2, 4, 2)
    moves, hidden = tiny_parallax.moves(seen, actions, tiny_parallax.no_pace(2))
    again, pace = placed.moves(seen, actions, placed.stand(picture, EDGE), look)
    torch.testing.assert_close(again[..., :2], moves[..., :2])
    torch.testing.assert_close(placed.hidden(pace), hidden)
    start = placed.pose(placed.stand(picture, EDGE))
    start[:, 3] = torch.rad2deg(seen.horizon.atan())  # the pitch is seen
    moves[..., 2] = again[..., 2]  # and nobody sinks below the floor
    walked = placed.place.advance(start, look, moves * placed.config.unit)[0]
    torch.testing.assert_close(placed.pose(pace), walked, atol=1e-3, rtol=0)
    assert parallax_hash(placed) != parallax_hash(tiny_parallax)


def test_a_transformer_answers_as_before_when_it_gets_to_know_a_place(make_dit, make_inputs):
    old, new = make_dit(), make_dit(place_channels=place_channels(PERIOD, True))
    new.load_state_dict(with_place(old, new))
    noisy, recycled, *rest = make_inputs(new, 3)
    split = old.config.carried_channels
    assert torch.equal(new(noisy, recycled, *rest).isfinite(), torch.ones_like(noisy, dtype=torch.bool))
    torch.testing.assert_close(new(noisy, recycled, *rest), old(noisy, recycled[:, :, :split], *rest))
    mapped = make_dit(seed=3, place_channels=place_channels(PERIOD, True, levels=4))
    mapped.load_state_dict(with_place(new, mapped))
    noisy, recycled, *rest = make_inputs(mapped, 3)
    split = new.config.recycled_channels
    torch.testing.assert_close(mapped(noisy, recycled, *rest), new(noisy, recycled[:, :, :split], *rest))
    for begin, end in ((new, old), (mapped, make_dit(place_channels=7))):
        with pytest.raises(UserError, match="another one"):
            with_place(begin, end)


def test_views_of_another_map_are_heeded_as_those_of_the_first(make_dit, make_inputs):
    old = make_dit(seed=3, place_channels=place_channels(PERIOD, True, levels=4))
    new = make_dit(place_channels=place_channels(PERIOD, False, levels=4))
    new.load_state_dict(with_place(old, new))
    noisy, recycled, *rest = make_inputs(new, 3)
    carried, waves, views = recycled.split(
        (new.config.carried_channels, place_channels(PERIOD, False), CHANNELS), dim=2
    )
    none = torch.zeros(*waves.shape[:2], place_channels(PERIOD, True), *waves.shape[3:])
    told = torch.cat([carried, none, views], dim=2)
    torch.testing.assert_close(new(noisy, recycled, *rest), old(noisy, told, *rest))


def test_without_recycling_the_place_is_still_told(make_dit, make_inputs):
    dit = make_dit(place_channels=place_channels(PERIOD, True), recycle=False)
    noisy, recycled, *rest = make_inputs(dit, 2)
    other = recycled.clone()
    other[:, 1, dit.config.carried_channels :] += 1
    assert not torch.allclose(dit(noisy, other, *rest), dit(noisy, recycled, *rest))


def test_history_noise_spares_the_place():
    recycled = torch.zeros(8, 2, 5, 2, 2)
    noisy = corrupt_history(recycled, 1.0, step_generator(0, 0), told=2)
    assert noisy[:, :, :3].any() and not noisy[:, :, 3:].any()


def test_windows_are_told_the_recorded_pose(tiny_place, place_latents, tiny_vae):
    clips = LatentClips(place_latents, "train")
    batch = clips.gather([(0, 1)], 3)
    assert batch.place_channels == 0 and batch.pose.shape == (1, 4, 5)
    clips.tell(Reprojector(tiny_vae, clips.meta["hfov"], tiny_place))
    told = clips.gather([(0, 1)], 3)
    assert told.place_channels == tiny_place.place_channels and torch.equal(
        told.ahead[:, :, : -told.place_channels], batch.ahead
    )
    stretch = float(tiny_place.stretch)
    due = tiny_place.place.channels(batch.pose[0, 1:], clips.turn.edge, stretch, *batch.target.shape[-2:])
    torch.testing.assert_close(
        told.ahead[0, :, -told.place_channels :], due, atol=2e-3, rtol=0
    )  # kept in half precision
    torch.testing.assert_close(tiny_place.pose(told.pace), batch.pose[:, 0])


@pytest.fixture(scope="module")
def place_run(place_latents, tokenizer_run, tiny_place, tmp_path_factory):
    """Stage 1 with own histories in a place; its folder."""
    folder = tmp_path_factory.mktemp("place_run")
    meta = {"kind": "parallax", "config": dataclasses.asdict(tiny_place.config), "step": 0}
    parallax.save_tensors(folder / "parallax.safetensors", tiny_place.state_dict(), meta)
    config = adaptation.AdaptationTraining(
        latents=str(place_latents), tokenizer=str(tokenizer_run), parallax=str(folder / "parallax.safetensors"),
        preset="debug", steps=4, batch=2, frames=4, own_history=0.5, device="cpu",
    )  # fmt: skip
    adaptation.train(config, folder / "run", quiet=True)
    return folder / "run"


def test_a_world_that_is_a_place_plays_as_it_rolls_out(place_run, place_latents, led_by):
    from controls.action import Action
    from generator.checkpoint import load_weights
    from generator.world import World

    weights = load_weights(place_run / "snapshot")
    assert (
        weights.dit.config.place_channels == weights.parallax.place_channels and weights.parallax.place.map is not None
    )
    clips = LatentClips(place_latents, "train")
    world = World(place_run / "snapshot", "torch-fp32", threads=1)
    picture = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    shown = [world.reset(picture, 3)]
    actions = [Action.hold(world.spec, "forward", yaw=3.0 * k) for k in range(3)]
    shown += [world.step(action) for action in actions]
    state = world.save_state()
    after = world.step(actions[1])
    world.reset(picture, 9)
    world.load_state(state)
    assert np.array_equal(world.step(actions[1]), after)

    from controls.action import encode
    from generator.runtime.encode import encode_picture

    look = np.stack([a.look for a in actions]).astype(np.float32)
    rays = clips.camera.ray_map(look, 4, 4).reshape(3, -1, 4, 4)
    led = led_by([encode(a, world.spec) for a in actions], rays, look)
    eye = open_eye(weights.dit, weights.tokenizer, weights.config.hfov, weights.parallax)
    latent = encode_picture(weights.tokenizer, picture)
    rollout(weights.dit, latent, led, 3, eye)
    assert np.array_equal(((eye.picture[0] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy(), shown[-1][-1])


def test_the_last_stage_keeps_the_place(place_run, place_latents, data_set, tmp_path):
    config = decoder.DecoderTraining(
        data=str(data_set), latents=str(place_latents), start=str(place_run / "snapshot"), preset="debug", steps=2,
        batch=2, frames=3, own=1.0, maker=1e-3, maker_muon=1e-3, critic=0.0, own_critic=0.0, device="cpu",
    )  # fmt: skip
    run = decoder.train(config, tmp_path / "run", quiet=True)
    assert run.parallax.place is not None and run.dit.config.place_channels


def test_a_place_is_learned_with_the_ego_motion(data_set, tmp_path):
    changes = {"period": PERIOD, "checkered": True, "pictures": 4, "ego_from": 0.0, "steps": 3, "levels": 4}
    config = parallax.ParallaxTraining(str(data_set), preset="debug", batch=2, walks=2, device="cpu", **changes)
    parallax.train(config, tmp_path / "whole", quiet=True)
    for stop in (1, None):
        parallax.train(config, tmp_path / "cut", stop_after=stop, quiet=True)
    one, two = (parallax.load_parallax(tmp_path / name).state_dict() for name in ("whole", "cut"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    text = (tmp_path / "whole" / "metrics.jsonl").read_text()
    assert "place_half" in text and "heading_most" in text


def test_a_localiser_learns_where_pictures_were_taken(place):
    """Sixteen pictures of one colour each, which tell where they were taken."""
    torch.manual_seed(0)
    pose = torch.rand(16, 3) * torch.tensor([PERIOD, PERIOD, 360.0])
    pictures = torch.rand(16, 3, 1, 1).expand(-1, -1, 64, 64) * 2 - 1 + 0.1 * torch.randn(16, 3, 64, 64)
    learner = Place(PERIOD, True)
    optimiser = torch.optim.Adam(learner.parameters(), 2e-3)
    for _ in range(120):
        loss = (learner.localiser(pictures) - learner.aim(pose)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = learner.distances(learner.locate(pictures), pose)
    assert found["place_half"] < 30 and found["heading_half"] < 10


def test_latents_without_poses_are_refused(tiny_place, place_latents, tiny_vae):
    clips = LatentClips(place_latents, "train")
    del clips.clips[0]["pose"]
    with pytest.raises(UserError, match="no poses"):
        clips.tell(Reprojector(tiny_vae, clips.meta["hfov"], tiny_place))


def test_a_folder_keeps_a_place(tiny_place, tiny_vae, make_dit, tmp_path):
    from generator.checkpoint import WorldConfig, load_weights

    dit = make_dit(place_channels=tiny_place.place_channels)
    config = WorldConfig(
        "debug", (64, 64), 90.0, 24, 4.0, "test", "test", tiny_vae.config, dit.config, ActionSpec(), tiny_place.config
    )
    save_weights(tmp_path / "world", config, tiny_vae, dit.state_dict(), parallax=tiny_place)
    found = load_weights(tmp_path / "world").parallax
    assert found.config == tiny_place.config
    assert build(ParallaxConfig, parallax_sizes("debug"), "parallax").period == 0.0
    picture = torch.rand(1, 3, 64, 64) * 2 - 1
    torch.testing.assert_close(found.stand(picture, EDGE), tiny_place.stand(picture, EDGE))


def test_a_recording_of_the_endless_court_is_a_place(data_set, tmp_path):
    """Its period is known; one that is given counts instead."""
    meta = json.loads((data_set / "meta.json").read_text())
    shutil.copytree(data_set, tmp_path / "data")
    (tmp_path / "data" / "meta.json").write_text(json.dumps({**meta, "world": "halls", "size": "endless"}))
    config = parallax.ParallaxTraining(str(tmp_path / "data"), preset="debug", steps=1, device="cpu")
    made = parallax.open_run(config, tmp_path / "known").parallax
    assert (made.config.period, made.config.checkered, made.config.levels) == (1792.0, True, 33)
    walked = Dataset.open(tmp_path / "data").clip(0).pose[:, :2]
    assert made.place.stands(torch.from_numpy(walked).float()).all() and made.place.ground.mean() < 0.1
    given = dataclasses.replace(config, period=640.0)
    made = parallax.open_run(given, tmp_path / "given").parallax
    assert (made.config.period, made.config.checkered, made.config.levels) == (640.0, False, 0)
    assert (
        parallax.open_run(dataclasses.replace(given, data=str(data_set), period=0.0), tmp_path / "none").parallax.place
        is None
    )


def test_a_map_tells_where_a_picture_was_taken_more_exactly(tiny_place, monkeypatch):
    """The localiser's guess lies beside the truth; the view that is most like the picture does not."""
    place, stretch = tiny_place.place, float(tiny_place.stretch)
    pose = torch.tensor([[300.0, 77.0, 200.0, 4.0], [41.0, 470.0, 20.0, -3.0]])
    picture = torch.nn.functional.interpolate(place.map.view(pose, EDGE, stretch, 40, 64)[:, :3], (80, 128))
    guess = pose + torch.tensor([14.0, -12.0, 4.0, 0.0])
    said = iter([place.aim(one) for one in (guess, *guess[:, None], *guess[:, None])])
    monkeypatch.setattr(place.localiser, "forward", lambda pictures: next(said))
    before = place.distances(place.locate(picture), pose)
    after = place.distances(place.find(picture, pose[:, 3], EDGE, stretch), pose)
    assert after["place_most"] < 7.0 < before["place_half"] and after["heading_most"] < 1.5 < before["heading_half"]
    assert (place.find(picture, pose[:, 3], EDGE, stretch)[:, 4] == 0.0).all(), "who stands is found standing"
    assert torch.equal(Place(PERIOD, True).find(picture, pose[:, 3], EDGE, stretch)[:, 3], pose[:, 3])
    air = torch.nn.functional.pad(pose, (0, 1), value=30.0)[:1]
    picture = torch.nn.functional.interpolate(place.map.view(air, EDGE, stretch, 40, 64)[:, :3], (80, 128))
    said = iter([place.aim(pose[:1])])
    jumped = place.find(picture, pose[:1, 3], EDGE, stretch)
    assert (jumped[0, 4] - 30.0).abs() < 8.0, "or in a jump"
