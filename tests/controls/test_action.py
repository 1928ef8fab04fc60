"""The one encoding: exact round trip, order of fields, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from controls.action import KEYS, Action, ActionSpec, decode, encode, encode_rows, received
from controls.errors import UserError

SPEC = ActionSpec()
degrees = st.floats(-SPEC.max_look, SPEC.max_look, width=32, allow_subnormal=False)
actions = st.builds(
    Action,
    hnp.arrays(np.uint8, (SPEC.ticks, len(SPEC.keys)), elements=st.integers(0, 1)),
    hnp.arrays(np.float32, (SPEC.ticks, 2), elements=degrees.filter(lambda v: v == 0 or abs(v) > 1e-30)),
)


@given(actions)
def test_round_trip_is_exact(action: Action) -> None:
    encoded = encode(action, SPEC)
    assert encoded.shape == (SPEC.ticks, SPEC.fields) and encoded.dtype == np.float32
    assert decode(encoded, SPEC) == action


@given(st.lists(actions, min_size=1, max_size=4))
def test_clip_rows_are_the_actions_one_after_another(clip: list[Action]) -> None:
    rows = encode_rows(np.concatenate([a.keys for a in clip]), np.concatenate([a.look for a in clip]), SPEC)
    np.testing.assert_array_equal(rows, np.concatenate([encode(a, SPEC) for a in clip]))


def test_order_of_fields() -> None:
    encoded = encode(Action.hold(SPEC, "run", yaw=4.0, pitch=-2.0), SPEC)
    expected = np.zeros(SPEC.fields, np.float32)
    expected[KEYS.index("run")], expected[-2], expected[-1] = 1, 0.5, -0.25
    np.testing.assert_array_equal(encoded, np.tile(expected, (SPEC.ticks, 1)))


def test_spec_round_trip_and_refusals() -> None:
    spec = ActionSpec(keys=("forward", "jump"), max_look=30.0)
    assert ActionSpec.from_dict(spec.to_dict()) == spec
    with pytest.raises(UserError, match="action spec"):
        ActionSpec.from_dict({"keys": ["forward"]})
    with pytest.raises(UserError, match="Unknown key 'fly'"):
        Action.hold(SPEC, "fly")
    assert not Action.idle(SPEC).keys.any() and Action.idle(SPEC) != Action.hold(SPEC, "jump")


@given(actions)
def test_what_a_world_receives_of_an_action_in_its_limits_is_the_action(action: Action) -> None:
    assert received(action, SPEC) == action


def test_what_a_world_receives_of_a_faster_turn_is_clipped() -> None:
    made = received(Action.hold(SPEC, "run", yaw=300.0, pitch=-46.0), SPEC)
    assert np.array_equal(made.look, np.tile(np.float32([SPEC.max_look, -SPEC.max_look]), (SPEC.ticks, 1)))
    assert made.keys.sum() == SPEC.ticks
