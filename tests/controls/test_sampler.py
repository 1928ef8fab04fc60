"""Design equality 6: no motion lost, a short tap kept, focus loss releases everything."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controls.action import Action, ActionSpec
from controls.bindings import load_bindings
from controls.sampler import KEY_RATE, LOOK_STEP, STICK_RATE, ActionBuilder, InputSampler, TickRow

SPEC = ActionSpec()
BINDINGS = load_bindings()
SOURCES = ("w", "s", "up", "left shift", "space", "e", "mouse left", "pad a", "pad x", "not bound")
pixels = st.floats(-2000, 2000)
motions = st.tuples(st.just("motion"), pixels, pixels)
presses = st.tuples(st.sampled_from(["press", "release"]), st.sampled_from(SOURCES))
events = st.lists(motions | presses | st.just(("tick",)) | st.just(("collect",)), max_size=60)


def _sampler(**options: float) -> InputSampler:
    return InputSampler(SPEC, BINDINGS, **options)  # type: ignore[arg-type]


def _key(row: TickRow, name: str) -> int:
    return int(row.keys[SPEC.keys.index(name)])


def _feed(sampler: InputSampler, stream: list[tuple]) -> list[Action]:
    actions = []
    for verb, *values in stream:
        if verb == "tick":
            sampler.advance()
        elif verb == "collect":
            actions.append(sampler.collect())
        else:
            getattr(sampler, verb)(*values)
    return actions


@given(st.lists(motions | st.just(("tick",)) | st.just(("collect",)), max_size=60))
def test_no_motion_is_lost(stream: list[tuple]) -> None:
    sampler = _sampler(sensitivity=0.25)
    actions = _feed(sampler, stream)
    moved = np.array([(e[1], -e[2]) for e in stream if e[0] == "motion"]).reshape(-1, 2).sum(axis=0) * 0.25
    wanted_ticks = int(np.abs(moved).max(initial=0) / SPEC.max_look)
    history = sum(abs(v) for e in stream if e[0] == "motion" for v in e[1:]) * 0.25 / SPEC.max_look
    for _ in range((wanted_ticks + math.ceil(history)) // SPEC.ticks + 3):
        actions.append(sampler.collect())
    looks = np.concatenate([action.look for action in actions]).astype(np.float64)
    assert np.abs(looks).max() <= SPEC.max_look
    np.testing.assert_allclose(looks.sum(axis=0), moved, atol=LOOK_STEP)
    assert not sampler.collect().look.any()  # and nothing creeps on afterwards


@given(st.lists(presses, max_size=20))
def test_a_tick_has_every_key_pressed_in_it_and_afterwards_those_still_held(stream: list[tuple]) -> None:
    sampler = _sampler()
    held: set[str] = set()
    seen: set[str | None] = set()
    for verb, source in stream:
        getattr(sampler, verb)(source)
        if verb == "press":
            held.add(source)
            seen.add(BINDINGS.input_of(source))
        else:
            held.discard(source)
    first, second = sampler.tick(), sampler.tick()
    still = {BINDINGS.input_of(source) for source in held}
    for name in SPEC.keys:
        assert _key(first, name) == (name in seen)
        assert _key(second, name) == (name in still)


@given(events)
def test_a_tap_is_never_lost_however_late_the_generator(stream: list[tuple]) -> None:
    sampler = _sampler()
    actions = _feed(sampler, stream)
    actions += [sampler.collect(), sampler.collect()]  # after a full action's last tick, the next one has it
    taps = [e[1] for e in stream if e[0] == "press"]
    on = {name for a in actions for name, hit in zip(SPEC.keys, a.keys.any(axis=0), strict=True) if hit}
    assert {BINDINGS.input_of(s) for s in taps} & set(SPEC.keys) == on


@given(events)
def test_focus_loss_releases_everything(stream: list[tuple]) -> None:
    sampler = _sampler()
    sampler.stick("left", 0.0, -1.0)
    sampler.stick("right", 1.0, 0.0)
    _feed(sampler, stream)
    sampler.focus_lost()
    assert sampler.held == frozenset()
    sampler.tick()  # taps of before still count
    assert not any(sampler.tick().keys.any() for _ in range(3))
    sampler.reset()
    assert sampler.collect() == Action.idle(SPEC)


@given(events)
def test_actions_fit_the_spec(stream: list[tuple]) -> None:
    for action in [*_feed(sampler := _sampler(), stream), sampler.collect()]:
        assert action.keys.shape == (SPEC.ticks, len(SPEC.keys)) and action.keys.dtype == np.uint8
        assert action.look.shape == (SPEC.ticks, 2) and action.look.dtype == np.float32
        assert set(np.unique(action.keys)) <= {0, 1} and np.isfinite(action.look).all()


def test_two_sources_of_one_input() -> None:
    sampler = _sampler()
    sampler.press("left shift")
    sampler.press("right shift")
    sampler.release("left shift")
    sampler.tick()
    assert _key(sampler.tick(), "run") == 1
    sampler.release("right shift")
    assert _key(sampler.tick(), "run") == 0


def test_a_tap_counts_for_one_tick_of_the_action() -> None:
    sampler = _sampler()
    sampler.press("e")
    sampler.release("e")
    column = sampler.collect().keys[:, SPEC.keys.index("use")]
    assert column.tolist() == [1, 0, 0, 0]


def test_excess_motion_moves_into_following_ticks() -> None:
    sampler = _sampler(sensitivity=1.0)
    sampler.motion(100, 0)
    assert [float(sampler.tick().look[0]) for _ in range(4)] == [45, 45, 10, 0]


def test_collect_spreads_waiting_motion_and_keeps_ticks_in_time() -> None:
    sampler = _sampler(sensitivity=1.0)
    sampler.motion(8, 4)
    assert sampler.collect().look.tolist() == [[2, -1]] * 4
    sampler.motion(1, 0)
    sampler.advance()
    sampler.press("w")
    sampler.motion(6, 0)
    action = sampler.collect()
    assert action.look[:, 0].tolist() == [1, 2, 2, 2] and action.keys[:, 0].tolist() == [0, 1, 1, 1]


def test_late_generator_merges_the_oldest_rows() -> None:
    sampler = _sampler(sensitivity=1.0)
    for dx in (40, 30, 1, 2, 3):
        sampler.motion(dx, 0)
        sampler.advance()
    assert sampler.collect().look[:, 0].tolist() == [45, 1, 2, 3]
    assert float(sampler.tick().look[0]) == 25


def test_late_generator_keeps_a_tap_of_a_merged_row() -> None:
    sampler = _sampler()
    sampler.press("e")
    sampler.release("e")
    for _ in range(SPEC.ticks + 3):
        sampler.advance()
    assert sampler.collect().keys[:, SPEC.keys.index("use")].tolist() == [1, 0, 0, 0]


def test_builder_needs_all_rows() -> None:
    with pytest.raises(AssertionError):
        ActionBuilder(SPEC).take()


def test_invert_sensitivity_and_signs() -> None:
    plain, inverted = _sampler(sensitivity=0.5), _sampler(sensitivity=0.5, invert=True)
    for sampler in (plain, inverted):
        sampler.motion(4, 4)
    assert plain.tick().look.tolist() == [2, -2] and inverted.tick().look.tolist() == [2, 2]
    for sampler, sign in ((plain, 1), (inverted, -1)):
        sampler.stick("right", 0, -1)
        assert float(sampler.tick().look[1]) * sign > 0


def test_turn_keys_and_sticks_turn_while_held() -> None:
    sampler = _sampler()
    sampler.press("right")
    assert [float(sampler.tick().look[0]) for _ in range(2)] == [KEY_RATE, KEY_RATE]
    sampler.stick("right", 1.0, 0.0)
    assert float(sampler.tick().look[0]) == STICK_RATE and sampler.held == {"turn_right"}
    sampler.release("right")
    sampler.stick("right", 0.0, 0.0)
    assert not sampler.tick().look.any()
    sampler.press("up")
    sampler.release("up")
    assert float(sampler.tick().look[1]) > 0 and not sampler.tick().look.any()


def test_stick_as_buttons_has_hysteresis() -> None:
    sampler = _sampler()
    pressed = []
    for y in (-0.3, -0.6, -0.45, -0.3):
        sampler.stick("left", 0.0, y)
        sampler.tick()  # taps of the change itself
        pressed.append(_key(sampler.tick(), "forward"))
    assert pressed == [0, 1, 1, 0]


def test_toggle() -> None:
    toggled = type(BINDINGS)(BINDINGS.inputs, ("run",))
    sampler = InputSampler(SPEC, toggled)
    runs = []
    for _ in range(3):
        sampler.press("left shift")
        sampler.press("left shift")  # key repeat
        sampler.release("left shift")
        sampler.tick()
        runs.append(_key(sampler.tick(), "run"))
    assert runs == [1, 0, 1]
    sampler.focus_lost()
    assert _key(sampler.tick(), "run") == 0


def test_what_waits_can_be_seen_and_thrown_away() -> None:
    sampler = InputSampler(ActionSpec(), load_bindings(), sensitivity=0.5)
    sampler.motion(10, -4)
    sampler.press("w")
    sampler.press("space")
    sampler.release("space")
    assert sampler.waiting == (5.0, 2.0)
    sampler.still()
    assert sampler.waiting == (0.0, 0.0)
    row = sampler.tick()
    names = [key for key, down in zip(sampler.spec.keys, row.keys, strict=True) if down]
    assert names == ["forward"] and not row.look.any(), "what is held stays held"
    sampler.motion(10, 0)
    sampler.tick()
    assert sampler.waiting[0] == pytest.approx(0.0, abs=1 / 1024)
