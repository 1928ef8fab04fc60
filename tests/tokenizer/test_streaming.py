"""Equality 2: decoding a whole clip gives the pictures of decoding one latent frame at a time."""

import dataclasses

import pytest
import torch

from generator.tokenizer.streaming import StreamingDecoder
from generator.tokenizer.vae import PRESETS, VideoVAE

SMALL = {"encoder_channels": (8, 8, 16, 16), "decoder_channels": (8, 8, 16, 16)}
CONFIGS = {
    "debug": PRESETS["debug"],
    "paper": dataclasses.replace(PRESETS["paper"], **SMALL),
    "time first": dataclasses.replace(PRESETS["debug"], halve_time=(True, False), temporal_kernel=(3, 2, 1)),
}


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def streamed(decoder: StreamingDecoder, latents: torch.Tensor) -> torch.Tensor:
    state = decoder.init_state(latents.shape[0])
    frames, state = decoder.decode_first(latents[:, 0], state)
    parts = [frames]
    for index in range(1, latents.shape[1]):
        frames, state = decoder.decode_next(latents[:, index], state)
        parts.append(frames)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batch", [1, 2])
def test_streamed_equals_whole(name, batch):
    torch.manual_seed(0)
    vae = VideoVAE(CONFIGS[name]).eval()
    latents = torch.randn(batch, 9, vae.config.latent_channels, 3, 4)
    with torch.no_grad():
        whole = vae.decode(latents)
    pieces = streamed(StreamingDecoder(vae, (3, 4)), latents)
    assert whole.shape == pieces.shape == (batch, 1 + 8 * vae.config.time, 3, *whole.shape[-2:])
    assert (whole - pieces).abs().max() < 1e-5


def test_the_first_frame_is_the_picture_alone():
    vae = VideoVAE(PRESETS["debug"]).eval()
    latents = torch.randn(1, 3, 8, 3, 4)
    decoder = StreamingDecoder(vae, (3, 4))
    frame, _ = decoder.decode_first(latents[:, 0], decoder.init_state())
    with torch.no_grad():
        assert torch.allclose(frame, vae.decode(latents[:, :1]), atol=1e-5)


def test_state_shapes_never_change_and_the_given_state_is_left_alone():
    vae = VideoVAE(PRESETS["debug"]).eval()
    decoder = StreamingDecoder(vae)
    before = decoder.init_state(2)
    copies = [part.clone() for part in before]
    latents = torch.randn(2, 8, *vae.config.latent_size)
    _, after = decoder.decode_first(latents, before)
    _, later = decoder.decode_next(latents, after)
    assert [s.shape for s in before] == [s.shape for s in after] == [s.shape for s in later]
    assert all(torch.equal(a, b) for a, b in zip(before, copies, strict=True))


def test_decode_next_can_be_exported():
    vae = VideoVAE(PRESETS["debug"]).eval()
    decoder = StreamingDecoder(vae, (3, 4))
    state = decoder.init_state()

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = vae.decoder

        def forward(self, z, *parts):
            return self.decoder(z.unsqueeze(1), parts, False)

    z = torch.randn(1, 8, 3, 4)
    exported = torch.export.export(Step(), (z, *state)).module()
    frames, new = exported(z, *state)
    wanted, _ = decoder.decode_next(z, state)
    assert torch.allclose(frames, wanted, atol=1e-6) and len(new) == len(state)
