"""The benchmark of a world that several processes share: its figures, its pages, and requests that cannot be met."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run
from controls.errors import UserError
from generator.evaluation import benchmark as bench
from generator.evaluation import benchmark_parallel as shared
from generator.evaluation import latency
from generator.evaluation.benchmark import Plan, benchmark
from generator.evaluation.benchmark_page import to_markdown
from generator.runtime import parallel_load
from generator.runtime.build import random_weights
from generator.runtime.parallel_start import Request
from tests.processes import forks, together

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0
SMALL = {"preset": "debug", "backend": "torch-fp32", "frames": 2, "threads": 1}


def timed(monkeypatch, plan, size=2):
    """What each of several processes is given as the report of a plan, as torchrun would have it."""

    def act(meeting):
        for module in (bench, shared):
            monkeypatch.setattr(module, "launched", lambda: (meeting.rank, meeting.size))
        monkeypatch.setattr(shared.Meeting, "arranged", lambda: meeting)
        monkeypatch.setattr(latency, "BURSTS", 2)
        return benchmark(plan)

    return together(size, act)


@forks
def test_the_first_process_reports_what_all_of_them_share(monkeypatch):
    plan = Plan(**SMALL, sweep=("window=2",), far=(6, 8))
    found, nothing = timed(monkeypatch, plan)
    assert nothing is None and json.loads(json.dumps(found)) == found
    assert (found["backend"], found["parallel"], found["window"]) == ("torch-fp32-x2", 2, 4)
    assert [(row["backend"], row["window"]) for row in found["sweep"]] == [("torch-fp32-x2", 2)]
    for row in (found, *found["sweep"]):
        assert all(0 < row[f"{part}_ms"]["p50"] <= row[f"{part}_ms"]["p99"] for part in (*latency.PARTS, "total"))
        assert row["fps"] == pytest.approx(24 * row["real_time_factor"]) and row["first_frame_s"] > 0
        assert row["first_generated_s"] > row["open_s"] > 0
    if sys.platform == "linux":
        each = found["peak_rss_mb_each"]
        assert len(each) == 2 and min(each) > 50 and found["peak_rss_mb"] == pytest.approx(sum(each))
    assert found["peak_device_mb"] is None
    assert list(found["step_ms_at"]) == ["6", "8"] and found["far_ratio"] > 0
    assert found["eager"]["backend"] == found["diffusion_forcing"]["backend"] == "torch-fp32"
    lines = to_markdown(found).splitlines()
    assert lines[2].startswith("| torch-fp32-x2 (2 processes, cpu) |")
    assert lines[3].startswith("| eager, one process (torch-fp32) |") and "64x64, window 2" in lines[5]


@forks
def test_a_text_prefix_is_read_by_weights_of_a_folder(make_world, monkeypatch):
    folder = make_world(reproject=False, text_width=6)
    made, _ = timed(monkeypatch, Plan(**SMALL, weights=folder, beside=False, text_tokens=3))
    assert made["weights_hash"] != "random" and made["reproject_ms"] is None and "eager" not in made
    request = shared.request_of(Plan(**SMALL, weights=folder, text_tokens=3))
    assert request.text.shape == (1, 3, 6) and shared.request_of(Plan(**SMALL)).text is None


def test_random_numbers_are_those_of_one_process(with_bf16):
    right, made = random_weights("debug"), parallel_load.load(Request(None, "torch-fp32", preset="debug"))
    for part in ("dit", "tokenizer", "parallax"):
        one, other = getattr(right, part).state_dict(), getattr(made, part).state_dict()
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert made.config == right.config and made.hash == right.hash
    small = parallel_load.load(Request(None, "auto", preset="debug"))
    assert {p.dtype for p in small.dit.parameters()} == {torch.bfloat16}
    assert {p.dtype for p in small.tokenizer.parameters()} == {torch.float32}


def test_a_type_chooses_the_backend(with_bf16):
    def named(**changes):
        return shared.request_of(Plan(**{"preset": "debug", **changes})).dtype_name

    assert (named(), named(dtype="fp32"), named(backend="torch", dtype="bf16")) == (
        "torch-bf16", "torch-fp32", "torch-bf16",
    )  # fmt: skip
    with pytest.raises(UserError, match="does not compute in --dtype fp8"):
        named(dtype="fp8")


BAD = [
    (["--parallel", "0"], "--parallel 0 is below 1; give how many"),
    (["--parallel", "-2"], "--parallel -2 is below 1"),
    (["--parallel", "3"], "2 attention heads cannot be shared evenly by 3 processes; start 2 processes"),
    (["--parallel", "2", "--backend", "openvino"], "'openvino' does not run on several processes; choose torch-fp32"),
    (["--parallel", "2", "--backend", "all"], "does not run on several processes"),
    (["--parallel", "2", "--backend", "abacus"], "Unknown backend 'abacus'"),
    (["--parallel", "2", "--switch", "graph=false"], "leave out --switch"),
    (["--parallel", "2", "--counts"], "--counts, --compare and --tricks run in one process"),
    (["--parallel", "2", "--compare"], "run in one process"),
    (["--parallel", "2", "--game"], "--game runs in one process"),
    (["--parallel", "2", "--frames", "0"], "--frames 0"),
    (["--parallel", "2", "--sweep", "depth=2"], "--sweep 'depth=2' is not window"),
    (["--parallel", "2", "--weights", "nowhere"], "There are no weights in 'nowhere'"),
    (["--parallel", "2", "--preset", "pokcet"], "Unknown preset 'pokcet'"),
    (["--parallel", "2", "--preset", "aapt-8b"], "in each of 2 processes, but 30 GB are free on cpu for 2 of them"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_what_cannot_be_shared_is_one_sentence_before_anything_starts(words, said, monkeypatch, capsys):
    monkeypatch.setattr(shared, "start_followers", None)
    monkeypatch.setattr(shared, "load", None)
    monkeypatch.setattr(parallel_load, "available_memory", lambda device: 30e9)
    given = [] if "--preset" in words else ["--preset", "debug"]
    assert run.main(["benchmark", *given, *words]) == 2
    told = capsys.readouterr()
    assert said in told.err and told.err.count("\n") == 1 and not told.out


@forks
def test_processes_that_do_not_fit_are_all_told_the_same(monkeypatch):
    for changes, said in (({"parallel": 3}, "--parallel 3 is not the 2 processes"), ({"backend": "cuda"}, "'cuda'")):

        def act(meeting, changes=changes):
            monkeypatch.setattr(bench, "launched", lambda: (meeting.rank, meeting.size))
            monkeypatch.setattr(shared, "launched", lambda: (meeting.rank, meeting.size))
            monkeypatch.setattr(shared.Meeting, "arranged", lambda: meeting)
            with pytest.raises(UserError) as told:
                benchmark(Plan(**SMALL | changes))
            return str(told.value)

        one, other = together(2, act)
        assert one == other and said in one


def test_a_process_that_ends_too_early_is_named(monkeypatch):
    other = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    other.wait()

    def broken(meeting, request):
        raise RuntimeError("Connection closed by peer")

    monkeypatch.setattr(shared, "start_followers", lambda request, port: [other])
    monkeypatch.setattr(shared, "assemble", broken)
    with pytest.raises(UserError, match="Process 1 of 2 ended too early"):
        benchmark(Plan(**SMALL, parallel=2))


@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("way", ["torchrun", "--parallel"])
def test_the_command_on_two_processes(world_folder, tmp_path, way):
    """As it is typed; the weights of a folder one way, those of a preset the other."""
    words = ["benchmark", "--backend", "torch-fp32", "--frames", "2", "--threads", "1", "--alone"]
    words += ["--json", str(tmp_path / "a.json"), "--markdown", str(tmp_path / "a.md")]
    if way == "torchrun":
        starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "run.py", *words]
        starter += ["--weights", str(world_folder)]
    else:
        starter = ["run.py", *words, "--parallel", "2", "--preset", "debug", "--window", "2"]
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    process = subprocess.Popen(
        [sys.executable, *starter], cwd=ROOT, env=environment | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        told = "".join(process.communicate(timeout=PATIENCE))
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
    assert process.returncode == 0, told
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["backend"], report["parallel"]) == ("torch-fp32-x2", 2)
    assert report["window"] == (3 if way == "torchrun" else 2) and report["total_ms"]["p50"] > 0
    assert (report["weights_hash"] == "random") == (way == "--parallel")
    assert "torch-fp32-x2 (2 processes, cpu)" in (tmp_path / "a.md").read_text()
