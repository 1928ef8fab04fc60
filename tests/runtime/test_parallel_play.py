"""`run.py play` on several processes as a player starts it: torchrun, --parallel, and processes that do not fit."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240.0
WORDS = ["play", "--headless", "--no-pacing", "--frames", "12", "--seed", "3", "--threads", "1"]


def begin(words, **place):
    """Start run.py (or what words name) in a process group of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    given = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT}
    environment |= {"OMP_NUM_THREADS": "1", **place}
    return subprocess.Popen([sys.executable, *words], env=environment, start_new_session=True, **given)


def end(processes):
    """(exit code, what was printed) of each; those still there are killed with all that they started."""
    told = []
    try:
        for process in processes:
            out, err = process.communicate(timeout=PATIENCE)
            told.append((process.returncode, out + err))
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, 9)
                process.wait()
    return told


@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("way", ["torchrun", "--parallel"])
def test_play_on_two_processes(world_folder, first_picture, tmp_path, way):
    words = [*WORDS, "--weights", str(world_folder), "--backend", "torch-fp32", "--json", str(tmp_path / "report.json")]
    if way == "torchrun":
        starter = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "run.py", *words]
    else:
        starter = ["run.py", *words, "--parallel", "2"]
    [(code, said)] = end([begin(starter)])
    assert code == 0, said
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["backend"] == "torch-fp32-x2" and report["frames"] >= 12


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_processes_with_other_weights_all_end_with_two(world_folder, make_world):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    folders = [world_folder, make_world(9)]
    started = [
        begin(["run.py", *WORDS, "--backend", "torch-fp32", "--weights", str(folder)], RANK=str(rank), **place)
        for rank, folder in enumerate(folders)
    ]
    told = end(started)
    assert [code for code, _ in told] == [2, 2], told
    for _, said in told:
        assert "farstep: The processes disagree on the weights" in said and "Traceback" not in said
