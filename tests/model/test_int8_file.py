"""The ranges for int8 on disk: what is written comes back, and whatever else is refused with one sentence."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controls.errors import UserError
from generator.model.int8_file import NAME, Range, load_ranges, save_ranges

HASH = "ab" * 32
KERNEL = (8, 4, 3, 3)
RANGES = {"ExplicitEncode": (Range(0, -1.0, 1.0, KERNEL), Range(3, -0.25, 4.5, (8, 8, 1, 1))), "ExplicitDepth": ()}
ENDS = st.tuples(st.integers(0, 999), st.floats(-900, -0.001), st.floats(0.001, 900))


@given(rows=st.lists(ENDS, max_size=6, unique_by=lambda row: row[0]))
@settings(max_examples=40, deadline=None)
def test_ranges_come_back(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranges")
    given = {"ExplicitDecode": tuple(Range(*row, KERNEL) for row in sorted(rows)), "ExplicitRefine": ()}
    save_ranges(folder, HASH, given)
    back = load_ranges(folder, HASH)
    assert list(back) == list(given) and back["ExplicitRefine"] == ()
    for one, other in zip(back["ExplicitDecode"], given["ExplicitDecode"], strict=True):
        assert (one.place, one.kernel) == (other.place, other.kernel)
        assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-6)


def test_a_folder_without_ranges_has_none(tmp_path):
    assert load_ranges(tmp_path, HASH) is None


WRONG = {
    "other weights": ("weights: ", 'weights: "cdcd" # ', "belong to the weights 'cdcd', not to 'abababababab'"),
    "no weights": ("weights: ", "# ", "weights is missing"),
    "another format": ("format: 1", "format: 2", "format"),
    "no list": ("{place: 0, low: -1.000000, high: 1.000000, kernel: [8, 4, 3, 3]}", "7", "must be a list of"),
    "no end": (", high: 1.000000", "", "must be a list of"),
    "a range above zero": ("-0.250000", "0.250000", "low must be a plain number from"),
    "no range at all": ("low: -1.000000, high: 1.000000", "low: 0.0, high: 0.0", "is no range"),
    "no kernel": ("[8, 4, 3, 3]", "wide", "kernel must be a list of whole numbers"),
    "a place twice": ("place: 3", "place: 0", "place must be a whole number from 1"),
    "a place that is a text": ("place: 3", "place: here", "place must be a whole number"),
    "an unknown name": ("format: 1", "format: 1\nmore: 1", "more"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said(what, tmp_path):
    old, new, words = WRONG[what]
    path = save_ranges(tmp_path, HASH, RANGES)
    text = path.read_text()
    assert old in text and path.name == NAME
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=words):
        load_ranges(tmp_path, HASH)
