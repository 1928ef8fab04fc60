"""The causal VAE: shapes, causality, presets, and what its configuration refuses."""

import dataclasses

import pytest
import torch

from controls.errors import UserError
from generator.tokenizer.blocks import Block
from generator.tokenizer.vae import PRESETS, WIDEST, TokenizerConfig, VideoVAE


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def vae() -> VideoVAE:
    torch.manual_seed(0)
    return VideoVAE(PRESETS["debug"]).eval()


def clip(batch: int = 2, frames: int = 9) -> torch.Tensor:
    return torch.rand(batch, frames, 3, 48, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_the_first_frame_is_one_latent_and_later_ones_come_in_fours(vae, frames):
    mean, logvar = vae.encode(clip(frames=frames))
    assert mean.shape == logvar.shape == (2, 1 + (frames - 1) // 4, 8, 3, 4)
    assert vae.decode(mean).shape == (2, frames, 3, 48, 64)


def test_latents_and_pictures_depend_on_nothing_later(vae):
    video = clip()
    changed = video.clone()
    changed[:, 5:] = 0.3
    before, after = vae.encode(video)[0], vae.encode(changed)[0]
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.equal(before[:, 2], after[:, 2])
    assert torch.equal(vae.decode(before)[:, :5], vae.decode(after)[:, :5])


def test_later_frames_depend_on_earlier_latents(vae):
    latents = vae.encode(clip())[0]
    changed = latents.clone()
    changed[:, 0] += 1.0
    assert not torch.allclose(vae.decode(latents)[:, 5:], vae.decode(changed)[:, 5:])


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_what_comes_before_a_clip_need_not_be_multiplied(kernel, frames):
    """A block's opening is its forward with an empty memory, and the last frame of it as well."""
    block, x = Block(4, kernel), torch.randn(frames * 2, 4, 6, 5)
    memory = x.new_zeros((kernel - 1) * 2, 4, 6, 5) if kernel > 1 else None
    whole = block(x, 2, memory)[0]
    torch.testing.assert_close(block.opening(x, 2), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(block.opening(x, 2, last=True), whole[-2:], atol=1e-5, rtol=1e-5)


def test_the_last_latent_alone_is_that_of_the_whole_clip(vae):
    video = clip()
    with torch.no_grad():
        torch.testing.assert_close(vae.encode_last(video), vae.encode(video)[0][:, -1], atol=1e-5, rtol=1e-5)


def test_clips_of_a_batch_do_not_touch(vae):
    video = clip()
    mean = vae.encode(video)[0]
    assert torch.allclose(mean[1:], vae.encode(video[1:])[0], atol=1e-5)
    assert torch.allclose(vae.decode(mean)[1:], vae.decode(mean[1:]), atol=1e-5)


def test_every_parameter_gets_a_gradient():
    vae = VideoVAE(PRESETS["debug"])
    mean, logvar = vae.encode(clip())
    (vae.decode(mean).abs().mean() + logvar.square().mean()).backward()
    silent = [n for n, p in vae.named_parameters() if p.grad is None or not p.grad.abs().any()]
    assert not silent


def test_normalise_and_its_inverse(vae):
    model = VideoVAE(PRESETS["debug"])
    model.shift.uniform_(-1, 1)
    model.scale.uniform_(0.5, 2)
    latents = torch.randn(2, 3, 8, 3, 4).clamp(-2.5, 2.5)
    assert torch.allclose(model.denormalise(model.normalise(latents)), latents, atol=1e-5)
    assert torch.equal(vae.normalise(latents), latents)


def test_a_strange_picture_has_no_latent_beyond_all_others(vae):
    """A bug: a picture of strong stripes had latents of 2,000, and no walk from it ever came back to the world."""
    latents = torch.tensor([-2000.0, -7.0, 3.0, 2000.0]).repeat(vae.config.latent_channels // 4)[:, None, None]
    latents = latents.expand(1, 1, -1, *vae.config.latent_size)
    assert vae.normalise(latents).unique().tolist() == [-WIDEST, -7.0, 3.0, WIDEST]


@pytest.mark.parametrize(
    ("name", "space", "latent"), [("pocket", 16, (10, 16)), ("paper", 8, (52, 92)), ("debug", 16, (4, 4))]
)
def test_presets_say_how_far_they_shrink(name, space, latent):
    config = PRESETS[name]
    assert (config.space, config.time, config.latent_size) == (space, 4, latent)


def test_the_paper_preset_has_the_shape_of_the_paper():
    config = PRESETS["paper"]
    assert config.decoder_channels == (64, 128, 256, 512) and set(config.decoder_blocks) == {2}
    small = dataclasses.replace(config, encoder_channels=(8, 8, 8, 8), decoder_channels=(8, 8, 8, 8))
    vae = VideoVAE(small)
    mean = vae.encode(clip(1, 5))[0]
    assert mean.shape == (1, 2, 16, 6, 8) and vae.decode(mean).shape == (1, 5, 3, 48, 64)


def test_config_round_trip_and_unknown_fields():
    config = PRESETS["paper"]
    assert TokenizerConfig.from_dict(config.to_dict()) == config
    with pytest.raises(UserError, match="train it again"):
        TokenizerConfig.from_dict({"colour": 3})


def test_sizes_that_do_not_fit_are_named(vae):
    with pytest.raises(AssertionError, match="6 video frames"):
        vae.encode(clip(frames=6))
    with pytest.raises(AssertionError, match="multiple of 16"):
        vae.encode(torch.zeros(1, 1, 3, 40, 64))
