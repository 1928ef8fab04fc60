"""Action files and scripts: recorded actions encode to what live play fed the model (design equality 6)."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controls import replay
from controls.action import Action, ActionSpec, encode
from controls.bindings import load_bindings
from controls.errors import UserError
from controls.replay import ActionWriter, built_in, open_actions, parse_script, read_actions, write_actions
from controls.sampler import InputSampler
from controls.strict_yaml import load_text

SPEC = ActionSpec()
pixels = st.floats(-3000, 3000)
events = st.lists(
    st.tuples(st.just("motion"), pixels, pixels)
    | st.tuples(st.sampled_from(["press", "release"]), st.sampled_from(["w", "a", "e", "left", "mouse left"]))
    | st.tuples(st.just("stick"), st.sampled_from(["left", "right"]), st.floats(-1, 1), st.floats(-1, 1))
    | st.sampled_from([("advance",), ("focus_lost",)]),
    max_size=30,
)


@given(stream=st.lists(events, min_size=1, max_size=4), sensitivity=st.floats(0.01, 1))
def test_recorded_actions_encode_to_what_live_play_fed(
    tmp_path_factory: pytest.TempPathFactory, stream: list[list[tuple]], sensitivity: float
) -> None:
    sampler = InputSampler(SPEC, load_bindings(), sensitivity)
    file = io.StringIO()
    writer = ActionWriter(file, SPEC, {"scene": "halls"})
    fed = []
    for latent_frame in stream:
        for verb, *values in latent_frame:
            getattr(sampler, verb)(*values)
        action = sampler.collect()
        fed.append(encode(action, SPEC))
        writer.add(action)
    path = tmp_path_factory.mktemp("replay") / "actions.jsonl"
    path.write_text(file.getvalue())
    recording = read_actions(path)
    assert recording.spec == SPEC and recording.complete and recording.meta == {"scene": "halls"}
    np.testing.assert_array_equal([encode(action, SPEC) for action in recording.actions], fed)
    scripted = open_actions(str(path), SPEC)
    np.testing.assert_array_equal([encode(scripted.next(), SPEC) for _ in fed], fed)
    assert scripted.finished and scripted.next() == Action.idle(SPEC)


def _recording(path: Path) -> list[str]:
    source = built_in("stroll", SPEC)
    write_actions(path, SPEC, [source.next() for _ in range(3)])
    return path.read_text().splitlines(keepends=True)


def test_a_crash_costs_the_last_line_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = _recording(path)
    path.write_text("".join(lines)[:-9])
    recording = read_actions(path)
    assert len(recording.actions) == 2 and not recording.complete


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": 5}, "line 3: latent frame 5 where 2 is due"),
        ({"keys": ["00000002"] * 4}, "line 3: keys must be"),
        ({"keys": ["0"] * 4}, "line 3: keys must be"),
        ({"look": [[1, 2]] * 3}, "line 3: look must be"),
        ({"look": [[46, 0]] * 4}, "line 3: look must be"),
        ({"look": [[float("nan"), 0]] * 4}, "line 3: look must be"),
        ({"look": [[[], 0]] * 4}, "line 3: look must be"),
        ({"look": None}, "line 3: look must be"),
        (None, "line 3: not readable as JSON"),
        ([], "line 3: expected a JSON object"),
    ],
)
def test_damage_is_named_with_its_line(tmp_path: Path, change: object, words: str) -> None:
    path = tmp_path / "a.jsonl"
    lines = _recording(path)
    if isinstance(change, dict):
        lines[2] = json.dumps({**json.loads(lines[2]), **change}) + "\n"
    else:
        lines[2] = "{,\n" if change is None else "[]\n"
    path.write_text("".join(lines))
    with pytest.raises(UserError, match=words):
        read_actions(path)


def test_headers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    for text, words in [
        ("", "line 1: not readable"),
        ("{}\n", "line 1: not a farstep-actions file"),
        (replay.header_line(SPEC).replace('"ticks"', '"tocks"'), "action spec"),
    ]:
        path.write_text(text)
        with pytest.raises(UserError, match=words):
            read_actions(path)
    path.write_bytes(b"\xff\xff")
    with pytest.raises(UserError, match="UTF-8"):
        read_actions(path)
    _recording(path)
    with pytest.raises(UserError, match="was recorded with"):
        open_actions(str(path), ActionSpec(keys=("forward",)))
    with pytest.raises(UserError, match="Cannot read"):
        read_actions(tmp_path / "none.jsonl")


def test_script(tmp_path: Path) -> None:
    path = tmp_path / "walk.yaml"
    path.write_text("- {hold: [forward, run], yaw: 1.5, frames: 2}\n- {hold: left, tap: [use], pitch: -1}\n- {}\n")
    source = open_actions(str(path), SPEC, loop=True)
    first, again, tapped, idle, looped = (source.next() for _ in range(5))
    assert first == again == looped == Action.hold(SPEC, "forward", "run", yaw=1.5)
    assert tapped.keys[:, SPEC.keys.index("use")].tolist() == [1, 0, 0, 0]
    assert tapped.keys[:, SPEC.keys.index("left")].all() and idle == Action.idle(SPEC)
    assert not source.finished


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "a script is a list"),
        ("a: 1", "a script is a list"),
        ("- {}\n- {hold: [forwrd]}\n", "line 2: unknown key 'forwrd'; did you mean 'forward'"),
        ("- {}\n- {yaw: 46}\n", "line 2: yaw must be"),
        ("- {frames: 0}\n", "line 1: frames must be"),
        ("- {frames: 9000000}\n- {frames: 9000000}\n", "longer than"),
        ("- {holds: [run]}\n", "did you mean 'hold'"),
        ("- run\n", "expected `name: value` pairs"),
    ],
)
def test_script_refusals(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_script(load_text(text, "s.yaml"), SPEC)


def test_built_in_scripts() -> None:
    for name in replay.BUILT_IN:
        source = open_actions(name, SPEC, seed=3)
        first = [source.next() for _ in range(5)]
        source.reset()
        assert [source.next() for _ in range(5)] == first and not source.finished
    assert built_in("idle", SPEC).next() == Action.idle(SPEC)
    assert built_in("forward", SPEC).next().keys[:, 0].all() and built_in("spin", SPEC).next().look[:, 0].all()
    with pytest.raises(UserError, match="did you mean 'stroll'"):
        open_actions("strol", SPEC)
    with pytest.raises(UserError, match="Unknown script"):
        built_in("nothing", SPEC)


def test_stroll_is_a_function_of_seed_and_frame() -> None:
    source = built_in("stroll", SPEC, seed=7)
    actions = [source.next() for _ in range(600)]
    assert actions[41] == replay.stroll(SPEC, 7, 42) != replay.stroll(SPEC, 8, 42)
    look = np.concatenate([a.look for a in actions])
    assert 1.2 < look[:, 0].std() < 2.8 and np.abs(np.diff(look[:, 0])).max() < 0.5
    assert 0.6 < np.concatenate([a.keys for a in actions])[:, 0].mean() < 1.0
