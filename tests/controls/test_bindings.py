"""Bindings: the default covers everything; wrong files are refused with a line."""

from pathlib import Path

import pytest

from controls.action import ActionSpec
from controls.bindings import (
    LOOK_INPUTS,
    Bindings,
    load_bindings,
    parse_bindings,
    save_bindings,
    write_atomic,
)
from controls.errors import UserError
from controls.strict_yaml import load_text

SPEC = ActionSpec()


def _parse(inputs: str, rest: str = "") -> Bindings:
    return parse_bindings(load_text(f"format: 1\ninputs: {inputs}\n{rest}", "mine.yaml"), SPEC)


def test_default_reaches_everything_by_keys_alone_and_by_pad_alone() -> None:
    bindings = load_bindings()
    for name in (*SPEC.keys, *LOOK_INPUTS):
        sources = bindings.inputs[name]
        assert any(s.startswith("pad ") for s in sources)
        assert name == "attack" or any(not s.startswith(("pad ", "mouse ")) for s in sources)
    for source, name in [
        ("w", "forward"),
        ("a", "left"),
        ("left", "turn_left"),
        ("left shift", "run"),
        ("space", "jump"),
        ("e", "use"),
        ("mouse left", "attack"),
    ]:
        assert bindings.input_of(source) == name
    assert bindings.input_of("q") is None and bindings.unbound(SPEC) == ()


@pytest.mark.parametrize(
    ("inputs", "rest", "words"),
    [
        ("{forwrd: [w]}", "", "line 2: unknown name 'forwrd'; did you mean 'forward'"),
        ("{forward: [lefft shift]}", "", "did you mean 'left shift'"),
        ("{forward: [w], jump: [space, w]}", "", "'w' is bound to both forward and jump"),
        ("{forward: [w, w]}", "", "bound to both"),
        ("{forward: [1]}", "", "1 is not text; put it in quotes"),
        ("{forward: [W]}", "", "unknown source 'W'.*did you mean|unknown source 'W'"),
        ("{forward: {w: 1}}", "", "expected a list of names"),
        ("[w]", "", "expected `name: value` pairs"),
        ("{run: [w]}", "toggle: [runn]", "line 3: unknown input 'runn'; did you mean 'run'"),
        ("{run: [w]}", "toogle: []", "did you mean 'toggle'"),
    ],
)
def test_refusals(inputs: str, rest: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        _parse(inputs, rest)


def test_format_and_reserved() -> None:
    with pytest.raises(UserError, match="format is 2"):
        parse_bindings(load_text("format: 2\ninputs: {}\n", "f"), SPEC)
    with pytest.raises(UserError, match="format is None"):
        parse_bindings(load_text("inputs: {}\n", "f"), SPEC)
    with pytest.raises(UserError, match="window's own"):
        load_bindings(reserved={"w"})


def test_rebind_and_save(tmp_path: Path) -> None:
    default = load_bindings()
    with pytest.raises(UserError, match="'space' is bound to both jump and use"):
        default.rebind("use", "space")
    with pytest.raises(UserError, match="Unknown input 'uze'"):
        default.rebind("uze", "f")
    changed = default.rebind("use", "f", "é")
    assert changed.input_of("f") == "use" and changed.input_of("e") is None
    save_bindings(changed, tmp_path / "new" / "bindings.yaml")
    assert load_bindings(tmp_path / "new" / "bindings.yaml") == changed
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["bindings.yaml"]


def test_other_worlds_keys() -> None:
    spec = ActionSpec(keys=("forward", "swim"))
    document = load_text("format: 1\ninputs: {swim: x}\n", "f")
    bindings = parse_bindings(document, spec)
    assert bindings.input_of("x") == "swim" and bindings.unbound(spec) == ("forward",)


def test_unwritable_place_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        write_atomic(tmp_path / "file" / "below", "x")
