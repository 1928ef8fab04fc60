"""The reprojection on static buffers, on CPU tensors: what any backend sees, by operations that a graph can record."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from generator.checkpoint import load_weights
from generator.runtime.backend import Reprojection
from generator.runtime.eager import eager_encoder
from generator.runtime.gpu import WARM_UPS, Switches, open_gpu
from generator.runtime.gpu_graphs import GraphRunner
from generator.runtime.gpu_reprojection import GpuReprojection
from generator.tokenizer import devices, place_search

CPU = torch.device("cpu")
PLAIN = Switches(graph=False, overlap=False, attention="sdpa-math")
STEPS = 8
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "lift_fresh", "bincount", "equal"}


class Recorder(TorchDispatchMode):
    """Keeps every operation, as a graph does; `replay` does them again, reading what stays from where it was."""

    def __init__(self):
        super().__init__()
        self.done = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.done.append((function, args, kwargs or {}, made))
        return made

    @torch.no_grad()
    def replay(self):
        again = {}
        for function, args, kwargs, made in self.done:
            given = tree_map(lambda value: again.get(id(value), value), (args, kwargs))
            for old, new in zip(tree_leaves(made), tree_leaves(function(*given[0], **given[1])), strict=True):
                again[id(old)] = new

    @property
    def names(self):
        return [str(function) for function, *_ in self.done]

    def tensors(self, number):
        return [value for value in tree_leaves(self.done[number][1:]) if isinstance(value, torch.Tensor)]


def reprojection_of(weights, runner=None, device=CPU):
    """A GpuReprojection in float32."""
    turn = weights.reprojector(copy.deepcopy(weights.tokenizer).to(device))
    turn.parallax = copy.deepcopy(turn.parallax).to(device)
    return GpuReprojection(turn, weights.config.dit.action_fields, False, runner or GraphRunner(None))


def plain_of(weights):
    turn = weights.reprojector()
    return Reprojection(turn, eager_encoder(turn))


def frames(seed):
    """A picture, looks and keys of each step, and what is decoded after it."""
    rng = np.random.default_rng(seed)
    smooth = rng.integers(0, 255, (STEPS + 1, 4, 8, 8, 3)).repeat(8, 2).repeat(8, 3).astype(np.uint8)
    looks = rng.normal(0, 3, (STEPS, 4, 2)).astype(np.float32)
    keys = rng.integers(0, 2, (STEPS, 4, 10)).astype(np.float32)
    return smooth[0, 0], list(zip(looks, keys, smooth[1:], strict=True))


def walk(reprojection, seed=0, start=True):
    """What lies ahead (F, C + K, H, W), what is shown (F, ticks, Y, X, 3) and the paces (F, Z) of a walk."""
    picture, steps = frames(seed)
    if start:
        reprojection.reset(picture)
    ahead, shown, paces = [], [], []
    for look, keys, decoded in steps:
        ahead.append(reprojection(picture, look, keys))
        shown.append(reprojection.compose(decoded))
        paces.append(torch.from_numpy(reprojection.state()["pace"]))
        picture = shown[-1][-1]
    return torch.cat(ahead), np.stack(shown), torch.cat(paces)


def same(made, due):
    return torch.equal(made[0], due[0]) and np.array_equal(made[1], due[1]) and torch.equal(made[2], due[2])


@pytest.fixture(scope="module", params=["place", "body", "lines", "walk"])
def weights(request, place_folder, world_folder, embodied):
    found = load_weights(world_folder if request.param == "walk" else place_folder)
    if request.param in ("body", "lines"):
        return replace(found, parallax=embodied(found.parallax, 20 * (request.param == "lines")))
    return found


@pytest.fixture
def elsewhere(monkeypatch):
    """The processor's tensors are treated as those of a device that nobody waits for."""
    monkeypatch.setattr(devices, "at_hand", lambda tensor: False)
    monkeypatch.setattr(place_search, "CLOSER", ())  # where a walk begins is not what is recorded


def test_it_is_the_reprojection_of_every_other_backend(weights):
    made, due = reprojection_of(weights), plain_of(weights)
    right = walk(due)
    assert right[0].std() > 0.1 and right[2].std() > 0 and right[1][:, -1].std() > 0
    assert same(walk(made), right) and made.pose == due.pose
    assert all(torch.equal(a, b) for a, b in ((made.views.pictures, due.views.pictures), (made.pace, due.pace)))
    state, kept = made.state(), due.state()
    assert state.keys() == kept.keys() and np.array_equal(state["pace"], kept["pace"])
    assert same(walk(made, 1, start=False), walk(due, 1, start=False))
    for each in (made, due):
        each.load(state)
    assert made.pose == due.pose and same(walk(made, 2, start=False), walk(due, 2, start=False))
    assert same(walk(made), right), "a new walk begins as the first did"


def test_a_state_is_its_own_and_a_wrong_one_changes_nothing(weights):
    made = reprojection_of(weights)
    picture, [(look, keys, _), *_] = frames(0)
    made.reset(picture)
    with pytest.raises(AssertionError, match="comes before"):
        made.compose(np.zeros((4, 64, 64, 3), np.uint8))
    before, pace = made.state()["pace"], made.pace
    kept, first = before.copy(), made(picture, look, keys)
    held = first.clone()
    made(picture, 2 * look, keys)
    assert np.array_equal(before, kept) and torch.equal(first, held) and made.pace is pace
    stands = made.state()["pace"]
    with pytest.raises(RuntimeError, match="shape"):
        made.load({"pace": kept[:, 1:]})
    assert np.array_equal(made.state()["pace"], stands)


def test_elsewhere_it_makes_the_same(weights, monkeypatch):
    """Step by step from the same state: errors of a walk by itself feed on themselves."""
    made, due, (picture, steps) = reprojection_of(weights), plain_of(weights), frames(0)
    due.reset(picture)
    for look, keys, decoded in steps:
        made.load(due.state())
        with monkeypatch.context() as patch:
            patch.setattr(devices, "at_hand", lambda tensor: False)
            ahead, shown = made(picture, look, keys), made.compose(decoded)
        assert (ahead - due(picture, look, keys)).abs().mean() < 1e-4
        torch.testing.assert_close(made.pace, due.pace, atol=1e-3, rtol=1e-5)
        right = due.compose(decoded)
        assert np.abs(shown.astype(int) - right).mean() < 0.01
        picture = right[-1]


def test_nothing_waits_for_a_number_or_brings_one_in(weights, elsewhere):
    made, (picture, steps) = reprojection_of(weights), frames(0)
    walk(made)  # whatever is made once has been made
    names = []
    for look, keys, decoded in steps[:3]:
        for gate, array in ((made.picture, picture), (made.look, look), (made.actions, keys), (made.decoded, decoded)):
            gate.enter(array)
        with Recorder() as recorder:
            made.ahead_body()
            made.compose_body()
        for function, args, _, _ in recorder.done:
            name = function._schema.name.removeprefix("aten::")
            assert name not in WAITS, name
            given = [value for value in tree_leaves(args) if isinstance(value, torch.Tensor)]
            masks = name.startswith("index") and any(value.dtype == torch.bool for value in given[1:])
            assert not masks, f"{name} of a mask has as many results as the mask says"
        names.append(recorder.names)
    assert names[0] == names[1] == names[2] and len(names[0]) > 100, "what is done depends on no number"


def test_every_tensor_is_on_the_device(weights):
    """On a device whose tensors hold no numbers nothing can be read, and what came from a processor would be seen."""
    made = reprojection_of(weights, device=torch.device("meta"))
    made.ahead_body()
    made.compose_body()
    with Recorder() as recorder:
        made.ahead_body()
        made.compose_body()
    for number, name in enumerate(recorder.names):
        assert {tensor.device.type for tensor in recorder.tensors(number)} <= {"meta"}, name
    assert len(recorder.done) > 100


def test_what_was_recorded_at_one_frame_is_right_at_every_other(weights, elsewhere):
    recorded = []

    def capture(body):
        before = made.pace.clone()
        recorder = Recorder()
        with recorder:
            body()
        made.pace.copy_(before)  # recording runs nothing
        recorded.append(recorder)
        return recorder.replay

    made, plain = reprojection_of(weights, GraphRunner(capture, WARM_UPS)), reprojection_of(weights)
    assert STEPS > WARM_UPS + 2
    for seed, start in ((0, True), (1, False), (2, True)):
        assert same(walk(made, seed, start), walk(plain, seed, start)), seed
    state = plain.state()
    for each in (made, plain):
        walk(each, 3, start=False)
        each.load(state)
    assert same(walk(made, 4, start=False), walk(plain, 4, start=False))
    assert len(recorded) == 2 == len(made.runner.graphs)


def test_ticks_by_themselves_are_those_of_the_whole(weights):
    ego = weights.parallax.ego
    if ego is None:
        pytest.skip("a body goes tick by tick anyway")
    given, pace = torch.randn(2, 4, ego.memory.input_size), torch.randn(2, ego.memory.hidden_size)
    moves, last = ego.tick_by_tick(given, pace)
    whole, end = ego.memory(given, pace[None])
    torch.testing.assert_close(moves, ego.out(whole), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(last, end[0], atol=1e-5, rtol=1e-5)


def test_training_may_use_what_play_has_made_once():
    devices.constant.cache_clear()
    with torch.inference_mode():
        made = devices.constant((1.0, 2.0), CPU)
    (torch.ones(2, requires_grad=True) * made).sum().backward()
    assert devices.constant((1.0, 2.0), CPU) is made


@pytest.mark.parametrize("wanted", [True, False])
def test_the_backend_has_it_unless_it_is_switched_off(weights, wanted):
    backend = open_gpu("cuda", weights, CPU, replace(PLAIN, reproject=wanted))
    assert type(backend.reprojection) is (GpuReprojection if wanted else Reprojection)
    assert backend.switches["reproject"] == wanted
    turn = backend.reprojection.turn
    assert same(walk(backend.reprojection), walk(Reprojection(turn, eager_encoder(turn))))
