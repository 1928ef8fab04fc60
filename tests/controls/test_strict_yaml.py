"""Everything that strict YAML refuses, with its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controls.errors import UserError
from controls.strict_yaml import MAX_BYTES, did_you_mean, load_file, load_text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: 'a' stands twice"),
        ("a: &x 1\nb: *x\n", "line 1: aliases"),
        ("a: 1\nb: !!python/name:os.system\n", "line 2: the tag"),
        ("a: {<<: {b: 1}}\n", "line 1: the name '<<' is not text"),
        ("x: 1\n1: 2\n", "line 2: the name '1' is not text"),
        ("a: 1\n[b]: 1\n", "line 2: the name"),
        ("[" * 40 + "]" * 40, "levels deep"),
        ("a: 1\n---\nb: 2\n", "line 2: not readable as YAML"),
        ("a: [1\n", "not readable as YAML"),
        ("a: 2001-13-40\n", "not readable as YAML"),
        ("a: \x07\n", "not readable as YAML"),
        ("a: " + "9" * 5000, "not readable as YAML"),
    ],
)
def test_refusals(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load_text(text, "file.yaml")
    assert "file.yaml" in str(caught.value)


def test_files(tmp_path: Path) -> None:
    good, large, binary = (tmp_path / name for name in ("good.yaml", "large.yaml", "binary.yaml"))
    good.write_text("a:\n  - b\n  - {c: 1}\n")
    large.write_text("#" * (MAX_BYTES + 1))
    binary.write_bytes(b"\xff\xfe\x00")
    document = load_file(good)
    assert document.data == {"a": ["b", {"c": 1}]} and document.lines[("a", 1, "c")] == 3
    for path, words in [(large, "larger"), (binary, "UTF-8"), (tmp_path / "none", "Cannot read")]:
        with pytest.raises(UserError, match=words):
            load_file(path)


def test_numbers() -> None:
    document = load_text("n: 1e-3\nb: yes\nx: .nan\nw: 1.5\n", "f")
    for key in ("n", "b", "x"):
        with pytest.raises(UserError, match=f"{key} must be a plain number"):
            document.number((key,), document.data[key], 0, 1)
    with pytest.raises(UserError, match="line 4: w must be a whole number"):
        document.whole(("w",), document.data["w"], 0, 3)


@given(st.text(max_size=60))
def test_any_text_loads_or_is_a_sentence(text: str) -> None:
    sentence = "f"
    try:
        load_text(text, "f")
    except UserError as error:
        sentence = str(error)
    assert sentence.startswith("f")
    assert "\n" not in sentence


def test_did_you_mean() -> None:
    assert did_you_mean("forwrd", ["forward", "run"]) == "; did you mean 'forward'?"
    assert did_you_mean("zzz", ["run", "a"]) == "; known: a, run"
