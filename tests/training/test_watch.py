"""What ends a run of stage 3, and what does not."""

import math

import pytest
import torch

from controls.errors import UserError
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.watch import TOLD, WATCHED, Watch, grid_of, motion_of

FINE = {"motion": 1.0, "grid": 1.0, "saturated": 0.0}
N = WATCHED


def ended(figures, **settings) -> tuple[int, str]:
    """After how many steps with these figures the watch ends the run, and why."""
    watch, config = Watch(), AdversarialTraining(**settings)
    for number, changed in enumerate(figures):
        try:
            watch.look("here", number, FINE | changed, config)
        except UserError as error:
            return number, str(error)
    return len(figures), ""


@pytest.mark.parametrize(
    ("name", "bad", "allow", "words"),
    [
        ("motion", 0.1, "least_motion", "0.10 times as much .* come to a stop"),
        ("motion", 5.0, "most_motion", "5.00 times as much .* torn"),
        ("grid", 4.0, "most_grid", "grid of the patches is 4.00 times"),
        ("saturated", 1.0, "most_saturated", "100 % of the logits"),
    ],
)
def test_a_lasting_failure_ends_a_run_and_can_be_allowed(name, bad, allow, words):
    place, said = ended([{name: bad}] * (2 * N))
    assert place == N - 1 and "\n" not in said and "'here'" in said
    with pytest.raises(UserError, match=words + rf".*--resume-discriminator-from.*--set {allow}=0"):
        raise UserError(said)
    assert ended([{name: bad}] * (3 * N), **{allow: 0.0})[0] == 3 * N
    assert ended(([{name: bad}] + [{}] * 9) * N)[0] == 10 * N, "one step in ten is no failure"


def test_only_a_mean_counts():
    assert ended([{}] * N + [{"motion": 0.0}] * (2 * N), least_motion=0.2)[0] == pytest.approx(N + 0.8 * N, abs=1)
    assert ended([{"motion": 0.25}] * (2 * N), least_motion=0.2)[0] == 2 * N


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_ends_a_run_at_once(value):
    place, said = ended([{}, {"maker_norm": value}, {}], least_motion=0.0)
    assert place == 1 and "Step 1 gave no finite maker_norm" in said and "--set lr=" in said


def test_a_watch_goes_on_where_it_stood():
    watch, config = Watch(), AdversarialTraining()
    for step in range(N - 1):
        watch.look("here", step, FINE | {"motion": 0.0}, config)
    again = Watch(watch.state())
    assert again.state() == watch.state() and set(watch.state()) == set(TOLD)
    with pytest.raises(UserError, match="come to a stop"):
        again.look("here", N, FINE | {"motion": 0.0}, config)
    assert Watch(None).state() == {name: [] for name in TOLD}


def test_motion_and_grid_by_hand():
    frames = torch.zeros(1, 3, 1, 4, 6)
    frames[:, 1] = 2.0
    assert motion_of(frames) == 2.0
    columns = torch.tensor([0.0, 1.0, 4.0, 5.0, 8.0, 9.0]).expand(1, 1, 1, 4, 6)  # 1 within a patch of two, 3 between
    rows = torch.tensor([0.0, 1.0, 4.0, 5.0])[:, None].expand(1, 1, 1, 4, 6)
    assert grid_of(columns + rows, 2) == pytest.approx(3.0)
    assert grid_of(torch.randn(4, 4, 8, 16, 16, generator=torch.Generator().manual_seed(0)), 2) == pytest.approx(
        1, abs=0.05
    )
    assert grid_of(columns, 1) == 1.0 and grid_of(columns, 8) == 1.0 and grid_of(torch.zeros(1, 1, 1, 4, 4), 2) == 0.0
