"""The GPU runtime on CPU tensors: the numbers of eager, buffers that stay, bookkeeping of graphs, fp8, refusals."""

import importlib
import importlib.util
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from torch import nn

from controls.errors import UserError
from generator import rollout
from generator.checkpoint import load_weights
from generator.runtime import gpu_attention
from generator.runtime.encode import encode_picture
from generator.runtime.fp8 import Fp8Linear, check_capability, fp8_linears, from_fp8, to_fp8
from generator.runtime.gpu import GraphRunner, Switches, open_gpu, parse_switches
from generator.runtime.gpu_attention import kernel
from generator.runtime.gpu_cache import GpuCache
from generator.runtime.gpu_step import GpuStep
from generator.runtime.select import open_backend

CPU = torch.device("cpu")
STEPS = 14  # the window of the tiny world is 3
PLAIN = Switches(graph=False, overlap=False, attention="sdpa-math")


def draw(config, frames=STEPS):
    rng = np.random.default_rng(0)
    shapes = ((config.ticks, config.action_fields), (config.ray_channels, config.height, config.width))
    ahead = (1, config.ahead_channels, config.height, config.width)
    made = []
    for _ in range(frames):
        actions, rays, seen = (rng.normal(size=shape).astype(np.float32) for shape in (*shapes, ahead))
        made.append((actions, rays, torch.from_numpy(seen) if config.reproject else None))
    return made


def steps(dit, inputs, prefix, runner=None, fp8=False, fuse=True):
    """Latents of the static step in the model's own type, and the step."""
    length = 0 if prefix is None else prefix[0][0].shape[2]
    cache = GpuCache(dit.config, length, dit.embed.weight.dtype, CPU, fp8)
    made = GpuStep(dit, cache, kernel("sdpa-math"), fuse, False)
    first, latents = torch.ones_like(made.latent), []
    made.reset(first, prefix)
    for k, (actions, rays, ahead) in enumerate(inputs):
        made.noise.copy_(rollout.frame_noise(3, k, tuple(made.latent.shape[1:])))
        made.actions.copy_(torch.from_numpy(actions))
        made.rays.copy_(torch.from_numpy(rays))
        if ahead is not None:
            made.ahead.copy_(ahead)
        (runner or GraphRunner(None)).run(made.key(k), lambda k=k: made.run(k))
        latents.append(made.latent.clone())
    return torch.cat(latents), made


@torch.no_grad()
def right(dit, inputs, prefix):
    """Latents of eager."""
    c = dit.config
    state = rollout.start(dit, torch.ones(1, c.latent_channels, c.height, c.width), 3)
    state.prefix, made = prefix, []
    for actions, rays, ahead in inputs:
        given = (torch.from_numpy(actions)[None], torch.from_numpy(rays)[None])
        made.append(rollout.advance(dit, state, *given, ahead).clone())
    return torch.cat(made)


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize(
    "changes",
    [{"sink": 0}, {"sink": 1}, {"sink": 2, "reproject": False}, {"sink": 1, "text_width": 8, "reproject": False}],
    ids=["ring", "sink", "sinks", "text"],
)
def test_the_static_step_is_eagers(make_dit, changes, fuse):
    """Before, at and long after the window fills."""
    dit = make_dit(**changes)
    inputs, prefix = draw(dit.config), None
    if dit.config.text_width:
        with torch.no_grad():
            prefix = dit.prefill(torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0)))
    made, due = steps(dit, inputs, prefix, fuse=fuse)[0], right(dit, inputs, prefix)
    assert due.std() > 0.3
    torch.testing.assert_close(made, due, atol=2e-4, rtol=2e-4)


def test_a_cache_in_fp8_stays_near(make_dit):
    dit = make_dit(sink=1)
    inputs = draw(dit.config)
    (plain, one), (small, other) = (steps(dit, inputs, None, fp8=fp8) for fp8 in (False, True))
    error = ((small - plain).norm() / plain.norm()).item()
    assert 1e-5 < error < 0.15, error
    assert other.cache.keys.dtype == torch.float8_e4m3fn
    assert other.cache.keys.numel() == one.cache.keys.numel() and one.cache.keys.element_size() == 4


def test_rows_in_fp8():
    """Three bits of mantissa: each number to a sixteenth of itself, or of the row's smallest step."""
    rows = torch.randn(50, 64) * torch.logspace(-4, 4, 50)[:, None]
    small, scale = to_fp8(rows)
    back = from_fp8(small, scale, torch.float32)
    assert ((back - rows).abs() <= rows.abs() / 16 + scale * 2**-9).all()
    assert torch.equal(to_fp8(torch.zeros(1, 4))[0].float(), torch.zeros(1, 4))


def test_a_linear_layer_in_fp8():
    torch.manual_seed(0)
    plain, x = nn.Linear(64, 96), torch.randn(2, 40, 64)
    small, due = Fp8Linear(plain), plain(x)
    made = small(x)
    assert made.shape == due.shape and made.dtype == x.dtype
    assert 1e-4 < (made - due).norm() / due.norm() < 0.06
    both = fp8_linears(nn.Sequential(nn.Linear(64, 96), nn.Linear(96, 10)))
    assert [type(layer) for layer in both] == [Fp8Linear, nn.Linear]  # 10 outputs are no multiple of 16


def test_buffers_stay_where_they_are(make_dit):
    dit = make_dit(sink=1)
    inputs = draw(dit.config)
    made = steps(dit, inputs[:1], None)[1]
    before = {name: tensor.data_ptr() for name, tensor in vars(made).items() if isinstance(tensor, torch.Tensor)}
    kept = {name: tensor.data_ptr() for name, tensor in made.cache.tensors().items()}
    for k in range(1, 9):
        made.run(k)
    assert before == {n: t.data_ptr() for n, t in vars(made).items() if isinstance(t, torch.Tensor)}
    assert kept == {name: tensor.data_ptr() for name, tensor in made.cache.tensors().items()}
    assert made.index.item() == 9


def test_graphs_are_warmed_up_then_captured_then_replayed():
    ran, captured = [], []

    def capture(body):
        captured.append(body)  # recording runs nothing
        return body

    runner = GraphRunner(capture)
    for call in range(4):
        runner.run("a", lambda call=call: ran.append(call))
    assert ran == [0, 1, 1, 1] and len(captured) == 1 and list(runner.graphs) == ["a"]
    plain = GraphRunner(None)
    for call in range(3):
        plain.run("a", lambda call=call: ran.append(call))
    assert ran[4:] == [0, 1, 2] and not plain.graphs


def test_one_graph_for_each_number_of_filled_slots(make_dit):
    """Replaying what was captured at another frame gives the same latents: nothing in a graph depends on the frame."""
    dit = make_dit(sink=1)
    inputs, runner = draw(dit.config), GraphRunner(lambda body: body)
    due, _ = steps(dit, inputs, None)
    length = dit.config.sink + dit.config.window
    cache = GpuCache(dit.config, 0, torch.float32, CPU, False)
    made = GpuStep(dit, cache, kernel("sdpa-math"), True, False)
    for _ in range(3):  # warmed up, captured, replayed
        made.reset(torch.ones_like(made.latent), None)
        latents = []
        for k, (actions, rays, ahead) in enumerate(inputs):
            made.noise.copy_(rollout.frame_noise(3, k, tuple(made.latent.shape[1:])))
            for own, given in ((made.actions, actions), (made.rays, rays)):
                own.copy_(torch.from_numpy(given))
            made.ahead.copy_(ahead)
            runner.run(made.key(k), lambda k=k: made.run(k))
            latents.append(made.latent.clone())
        assert torch.equal(torch.cat(latents), due)
    assert sorted(runner.graphs) == list(range(length + 1))


@pytest.fixture(scope="module")
def weights(world_folder):
    return load_weights(world_folder)


def play(backend, inputs, first):
    backend.transformer.reset(first, 5)
    pictures = [backend.decoder.first(first)]
    latents = []
    for given in inputs:
        latents.append(backend.transformer.step(*given))
        pictures.append(backend.decoder.next(latents[-1]))
    return torch.cat(latents), np.concatenate(pictures)


@pytest.mark.parametrize(
    "switches",
    [
        PLAIN,
        replace(PLAIN, whole=True),
        replace(PLAIN, attention="sdpa-flash", fuse=False),
        replace(PLAIN, linear="fp8"),
        replace(PLAIN, cache="fp8"),
    ],
    ids=["plain", "whole", "flash", "linear", "cache"],
)
def test_the_backend_is_near_eager_and_goes_on_from_a_state(weights, first_picture, switches):
    first, inputs = encode_picture(weights.tokenizer, first_picture), draw(weights.config.dit)
    due, shown = play(open_backend("torch-fp32", weights, 1), inputs, first)
    backend = open_gpu("cuda", weights, CPU, switches)
    made, pictures = play(backend, inputs, first)
    assert made.dtype == torch.float32 and pictures.shape == shown.shape
    limit = 0.3 if "fp8" in (switches.linear, switches.cache) else 0.06
    assert (made - due).abs().mean() / due.std() < limit
    assert np.abs(pictures[:5].astype(int) - shown[:5]).mean() < 30 * limit
    assert backend.switches["whole"] == switches.whole and backend.switches["linear"] == switches.linear
    state = backend.transformer.state(), backend.decoder.state()
    ahead = [(backend.transformer.step(*given), given) for given in inputs[:4]]
    later = [backend.decoder.next(latent) for latent, _ in ahead]
    backend.transformer.load(state[0])
    backend.decoder.load(state[1])
    for (latent, given), frames in zip(ahead, later, strict=True):
        again = backend.transformer.step(*given)
        assert torch.equal(again, latent)
        if not switches.whole:
            assert np.array_equal(backend.decoder.next(again), frames)


def test_one_graph_of_step_and_decode_shows_the_same(weights, first_picture):
    first, inputs = encode_picture(weights.tokenizer, first_picture), draw(weights.config.dit)
    made = [play(open_gpu("cuda", weights, CPU, replace(PLAIN, whole=whole)), inputs, first) for whole in (False, True)]
    assert torch.equal(made[0][0], made[1][0]) and np.array_equal(made[0][1], made[1][1])


@pytest.mark.parametrize(
    ("capability", "name"), [((8, 0), "sdpa-flash"), ((9, 0), "sdpa-cudnn"), ((10, 0), "sdpa-cudnn")]
)
def test_the_attention_kernel_is_chosen_by_the_gpu(capability, name):
    assert gpu_attention.best(capability) == name and name in gpu_attention.KERNELS


def test_flash_attention_stands_behind_the_same_signature(monkeypatch):
    def function(q, k, v, softmax_scale):
        made = nnf.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), scale=softmax_scale)
        return made.transpose(1, 2), None

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: types.SimpleNamespace(flash_attn_func=function))
    query, key, value = torch.randn(1, 2, 5, 16), torch.randn(1, 2, 40, 16), torch.randn(1, 2, 40, 16)
    made = kernel("flash-attn-4")(query, key, value, 0.3)
    torch.testing.assert_close(made, kernel("sdpa-math")(query, key, value, 0.3))


def test_what_cannot_run_is_said(weights, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("cuda", "cuda-fp8", "cuda-tensorrt"):
        with pytest.raises(UserError, match="needs an NVIDIA GPU, and torch sees none"):
            open_backend(name, weights, 1)
    with pytest.raises(UserError, match=r"fp8 needs compute capability 8\.9 or more, this GPU has 8\.0"):
        check_capability((8, 0))
    check_capability((9, 0))
    with pytest.raises(UserError, match="no attention kernel 'fa2'; choose sdpa-flash"):
        kernel("fa2")
    monkeypatch.setattr(gpu_attention.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install -e '.\[flash\]'"):
        kernel("flash-attn-4")
    with pytest.raises(UserError, match="'torch-fp32' has no switches"):
        open_backend("torch-fp32", weights, 1, switches=("graph=off",))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        (("grapf=off",), "--switch 'grapf=off' is unknown; did you mean|unknown"),
        (("graph=maybe",), "graph is on or off"),
        (("cache=int4",), "cache is bf16 or fp8"),
        (("whole=on",), "add overlap=off"),
    ],
)
def test_switches_that_cannot_be_are_said(entries, said):
    with pytest.raises(UserError, match=said):
        parse_switches(entries, Switches())


def test_switches_are_read():
    made = parse_switches(("graph=off", "overlap=off", "whole=on", "attention=sdpa-cudnn", "cache=fp8"), Switches())
    assert made == Switches(graph=False, overlap=False, whole=True, attention="sdpa-cudnn", cache="fp8")
