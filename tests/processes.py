"""Several processes for one test: forked (nothing is imported again), bounded in time, and always cleaned up."""

import faulthandler
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from generator.model.ranks import Meeting

forks = pytest.mark.skipif(sys.platform != "linux", reason="these tests fork, which is safe with torch on Linux only")

kernels = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton comes with torch for CUDA only")


def check_kernel(check: Callable[[str], None], file: str) -> None:
    """A check of a GPU's kernel on a device, which ends by printing "alike": on a GPU, or without one by running the
    test's `file` in triton's interpreter.
    """
    if torch.cuda.is_available():
        check("cuda")
        return
    path = os.pathsep.join(part for part in sys.path if part)
    given = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}  # read when triton is imported
    done = subprocess.run([sys.executable, file], env=given, capture_output=True, text=True)
    assert done.returncode == 0 and "alike" in done.stdout, done.stderr


def together(count: int, act: Callable[[Meeting], Any], seconds: float = 240.0) -> list[Any]:
    """What `act` returns in each of `count` processes, in the order of their ranks; tensors and plain data only.

    AssertionError with the traceback of the first process that failed, or when one is not done in time.
    """
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = [(folder, rank, count, act, 0.9 * seconds) for rank in range(count)]
        processes = [context.Process(target=_one, args=args, daemon=True) for args in given]
        end = time.perf_counter() + seconds
        try:
            for process in processes:
                process.start()
            for process in processes:
                process.join(max(0.0, end - time.perf_counter()))
            late = [rank for rank, process in enumerate(processes) if process.exitcode is None]
        finally:
            for process in processes:
                process.kill()
                process.join()
        wrong = sorted(folder.glob("*.txt"), key=lambda path: path.stat().st_mtime)
        assert not wrong, f"process {wrong[0].stem} of {count}: {wrong[0].read_text()}"
        stacks = "\n".join((folder / f"{rank}.stacks").read_text() for rank in late)
        assert not late, f"processes {late} of {count} were not done after {seconds} s: {stacks}"
        return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(count)]


def _one(folder: Path, rank: int, count: int, act: Callable[[Meeting], Any], seconds: float) -> None:
    torch.set_num_threads(1)
    with (folder / f"{rank}.stacks").open("w") as stacks:
        faulthandler.dump_traceback_later(seconds, file=stacks)
        _act(folder, rank, count, act)
    os._exit(0)  # nothing of pytest's is to be finished here


def _act(folder: Path, rank: int, count: int, act: Callable[[Meeting], Any]) -> None:
    try:
        meeting = Meeting(rank, count, dist.FileStore(str(folder / "store"), count), patience=30.0)
        torch.save(act(meeting), folder / f"{rank}.pt")
    except BaseException:
        (folder / f"{rank}.txt").write_text(traceback.format_exc())
