"""Stage 0: two steps and two more are four, every weight learns, and the run leaves what others read."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from controls.action import ActionSpec
from controls.errors import UserError
from generator.data.clips import Dataset
from generator.training import packaged, tokenizer
from generator.training.losses import critic_loss, generator_loss, normal_kl, psnr
from generator.training.tokenizer import TokenizerTraining, load_tokenizer, train
from generator.training.windows import WindowPool, to_frames, to_video


class PlainDistance(torch.nn.Module):
    """Stands for LPIPS, whose weights a test machine may not have."""

    def forward(self, first, second):
        return (first - second).square().mean((1, 2, 3))


@pytest.fixture(autouse=True)
def light(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(tokenizer, "Lpips", PlainDistance)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A tiny data set in the contract's format: coloured gradients that slide."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "clips").mkdir()
    entries = []
    for index, split in enumerate(["train", "train", "held_map", "held_seed"]):
        blobs, offsets = [], [0]
        for t in range(21):
            y, x = np.mgrid[:48, :64]
            picture = np.stack([x * 2 + 4 * t, y * 3 + 20 * index, (x + y) * 2], -1)
            buffer = io.BytesIO()
            Image.fromarray(picture.astype(np.uint8)).save(buffer, "JPEG", quality=95, subsampling=0)
            blobs.append(buffer.getvalue())
            offsets.append(offsets[-1] + len(blobs[-1]))
        rows = {"keys": np.zeros((21, 8), np.uint8), "look": np.zeros((21, 2), np.float32)}
        np.savez(
            folder / "clips" / f"{index:06d}.npz",
            jpeg=np.frombuffer(b"".join(blobs), np.uint8),
            offsets=np.array(offsets),
            pose=np.zeros((21, 5), np.float32),
            **rows,
        )
        entry = {"file": f"clips/{index:06d}.npz", "frames": 21, "map": "M", "map_seed": 0, "theme": "t"}
        entries.append({**entry, "clip_seed": index, "split": split})
    meta = {"format": 1, "world": "test", "width": 64, "height": 48, "fps": 24, "hfov": 90.0, "seed": 0}
    meta |= {"action_spec": ActionSpec().to_dict(), "clips": entries}
    (folder / "meta.json").write_text(json.dumps(meta))
    return folder


def settings(data, **changes) -> TokenizerTraining:
    base = {"data": str(data), "preset": "debug", "steps": 4, "batch": 2, "lengths": (5, 9), "crop": (32, 32)}
    base |= {"pool": 4, "pictures": 3, "log_every": 1, "evaluate_every": 2, "critic_from": 0.5, "bf16": False}
    return TokenizerTraining(**{**base, **changes})


def weights(folder) -> dict[str, torch.Tensor]:
    return load_tokenizer(folder).state_dict()


@pytest.mark.parametrize("bf16", [False, True])
def test_two_steps_and_two_more_are_four(data, tmp_path, bf16):
    config = settings(data, bf16=bf16)
    train(config, tmp_path / "whole", quiet=True)
    train(config, tmp_path / "parts", stop_after=2, quiet=True)
    train(config, tmp_path / "parts", quiet=True)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())
    rows = [
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "parts")
    ]
    losses = [[row["l1"] for row in some if "l1" in row] for some in rows]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    assert any("critic" in row for row in rows[0])


def test_every_parameter_moves(data, tmp_path):
    config = settings(data, steps=2, critic_from=0.0, lpips_from=0.0)
    run = tokenizer.open_run(config, tmp_path)
    before = {n: p.detach().clone() for n, p in run.vae.named_parameters()}
    judge = {n: p.detach().clone() for n, p in run.critic.named_parameters()}
    tokenizer.train_step(run, 0.5)
    assert not [n for n, p in run.vae.named_parameters() if torch.equal(p, before[n])]
    assert not [n for n, p in run.critic.named_parameters() if torch.equal(p, judge[n])]


def test_it_learns_and_leaves_what_others_read(data, tmp_path):
    config = settings(data, steps=60, critic=0.0, lpips=0.0, evaluate_every=20, batch=4, lr=5e-3, muon=1e-2)
    path = train(config, tmp_path, quiet=True)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    quality = [r["psnr"] for r in rows if "psnr" in r]
    assert quality[-1] > quality[0] + 1.0
    assert {"metrics.png", "reconstruct.png", "tokenizer.safetensors"} <= {p.name for p in tmp_path.iterdir()}
    vae = load_tokenizer(path)
    clip = to_video(Dataset.open(data).clip(0).frames(0, 21))[None]
    with torch.no_grad():
        latents = vae.normalise(vae.encode(clip)[0])
    assert 0.2 < latents.std() < 3.0 and latents.mean().abs() < 1.0


def test_only_the_decoder_changes_when_the_encoder_is_frozen(data, tmp_path):
    train(settings(data, steps=2), tmp_path / "a", quiet=True)
    config = settings(data, steps=2, start=str(tmp_path / "a"), freeze_encoder=True)
    train(config, tmp_path / "b", quiet=True)
    first, second = weights(tmp_path / "a"), weights(tmp_path / "b")
    same = {name for name, value in first.items() if torch.equal(value, second[name])}
    assert {n for n in first if n.startswith("encoder.") or n in ("shift", "scale")} <= same
    assert not any(n.startswith("decoder.") for n in same)


def test_a_finished_run_does_nothing_more(data, tmp_path):
    train(settings(data, steps=2), tmp_path, quiet=True)
    before = (tmp_path / "tokenizer.safetensors").read_bytes()
    train(settings(data, steps=2), tmp_path, quiet=True)
    assert (tmp_path / "tokenizer.safetensors").read_bytes() == before


def test_bad_settings_are_sentences(data, tmp_path):
    with pytest.raises(UserError, match="no tokenizer preset 'big'"):
        train(settings(data, preset="big"), tmp_path / "a", quiet=True)
    with pytest.raises(UserError, match="no end"):
        train(settings(data, steps=0), tmp_path / "b", quiet=True)
    with pytest.raises(UserError, match="shorter windows"):
        train(settings(data, lengths=(25,)), tmp_path / "c", quiet=True)
    train(settings(data, steps=1), tmp_path / "d", quiet=True)
    with pytest.raises(UserError, match="another tokenizer"):
        train(settings(data, steps=2, preset="pocket"), tmp_path / "d", quiet=True)
    with pytest.raises(UserError, match="not a readable weights file"):
        load_tokenizer(tmp_path / "nowhere")


def test_windows_of_a_step_do_not_depend_on_earlier_steps(data):
    one, other = (WindowPool(Dataset.open(data), 9, 3, size=4) for _ in range(2))
    for step in range(3):
        walked = one.batch(step, 3, 5, (32, 32))
    assert torch.equal(walked, other.batch(2, 3, 5, (32, 32)))
    assert walked.shape == (3, 5, 3, 32, 32) and walked.abs().max() <= 1


def test_pictures_survive_the_way_to_tensors_and_back():
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), dtype=np.uint8)
    assert np.array_equal(to_frames(to_video(frames)), frames)


def test_losses_have_their_closed_forms():
    zeros = torch.zeros(2, 3)
    assert normal_kl(zeros, zeros) == 0
    assert normal_kl(zeros + 1, zeros) == pytest.approx(0.5)
    assert critic_loss(zeros, zeros) == generator_loss(zeros, zeros) == pytest.approx(np.log(2))
    assert critic_loss(zeros + 9, zeros) < 1e-3 < generator_loss(zeros + 9, zeros)
    picture = torch.zeros(1, 3, 4, 4)
    assert psnr(picture, picture + 0.2).item() == pytest.approx(20.0, abs=1e-4)


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path))
    assert packaged.cache_folder() == tmp_path
