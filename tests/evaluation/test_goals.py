"""The script that measures the goals on a GPU: every command in it is one that could run there."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import run
from generator.evaluation import benchmark as bench
from generator.evaluation import benchmark_page, latency, tricks
from generator.runtime import build
from generator.runtime.gpu import Switches, parse_switches
from generator.runtime.select import TYPES, backend_name

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "benchmarks" / "goals.sh"
GPU_BYTES = 78 * 2**30
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")


def rows_of(
    folder: Path, *names: str, fails: str = "nothing"
) -> tuple[dict[str, list[str]], subprocess.CompletedProcess]:
    """What the script runs, by row, with a python that writes down its words and fails at one row."""
    stub = folder / "python"
    stub.write_text(
        f"#!{sys.executable}\nimport json, sys\nwords = sys.argv[1:]\n"
        f"open({str(folder / 'told')!r}, 'a').write(json.dumps(words) + '\\n')\n"
        f"sys.exit(2 * any({fails!r} in word for word in words))\n"
    )
    stub.chmod(0o755)
    env = {**os.environ, "OUT": str(folder)}
    ended = subprocess.run(
        ["bash", str(SCRIPT), str(stub), *names], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    told = [json.loads(line) for line in (folder / "told").read_text().splitlines()]
    return {Path(words[words.index("--json") + 1]).stem: words for words in told}, ended


def test_every_command_could_run_on_a_gpu_of_78_gib(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "check_gpu", lambda: torch.device("cuda"))
    monkeypatch.setattr(build, "available_memory", lambda device: float(GPU_BYTES))
    monkeypatch.setattr(benchmark_page, "to_markdown", lambda report: "")
    monkeypatch.setattr(run, "write_json", lambda path, report: None)
    monkeypatch.chdir(ROOT)
    plans, kind = {}, ""

    def noted(name):
        def note(plan, say=None, measure=False):
            plans[kind] = (name, plan)

        return note

    for name in ("benchmark", "compared", "tricks_of", "roofline_of"):
        monkeypatch.setattr(bench, name, noted(name))
    rows, ended = rows_of(tmp_path)
    assert ended.returncode == 0 and len(rows) > 12, ended.stderr
    for kind, words in rows.items():
        assert words[:2] == ["run.py", "benchmark"] and run.main(words[1:]) == 0, kind
    assert plans.keys() == rows.keys()
    for kind, (work, plan) in plans.items():  # noqa: B007
        if work == "tricks_of":
            plan = dataclasses.replace(plan, backend="cuda")
            for switches in tricks.VARIANTS.values():
                parse_switches((*plan.switches, *switches), Switches())
        bench.check(dataclasses.replace(plan, backend="cuda") if work == "roofline_of" else plan)
        named = backend_name(plan.backend, "" if work == "roofline_of" else plan.dtype)
        assert not plan.switches or named in TYPES["cuda"].values()
        parse_switches(plan.switches, Switches())
        assert plan.weights is None or (plan.weights / "config.json").exists(), "the weights that ship"


def test_the_goals_name_files_that_rows_write(tmp_path):
    rows, _ = rows_of(tmp_path)
    table = [line for line in (SCRIPT.parent / "README.md").read_text().splitlines() if line.startswith("| ")]
    named = {word.strip("`,").removesuffix(".json") for line in table for word in line.split() if ".json`" in word}
    assert len(named) >= 6 and named <= rows.keys()


def test_rows_can_be_named_and_one_that_fails_stops_no_other(tmp_path):
    rows, ended = rows_of(tmp_path, "pocket-cuda", "pocket-cpu")
    assert list(rows) == ["pocket-cuda", "pocket-cpu"] and ended.returncode == 0
    (tmp_path / "told").unlink()
    rows, ended = rows_of(tmp_path, "pocket-cuda", "pocket-cpu", fails="pocket-cuda.json")
    assert list(rows) == ["pocket-cuda", "pocket-cpu"] and ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "== not measured: pocket-cuda"


def test_states_of_gigabytes_are_put_back_less_often():
    assert latency.bursts_of(10**6) == (latency.BURSTS, latency.BURST)
    bursts, burst = latency.bursts_of(51 * 10**9)
    assert bursts == 3 and bursts * burst >= latency.BURSTS * latency.BURST
    assert latency.bursts_of(10**12)[0] == 2
