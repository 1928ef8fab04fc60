"""The page: whole in itself, well formed, and it says what the report says."""

import io
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from controls.errors import UserError
from generator.evaluation import charts, page
from generator.evaluation.drift import Drift
from generator.evaluation.report import Evaluation
from generator.evaluation.sheets import Sheet

VOID = {"meta", "img", "br"}


class Checker(HTMLParser):
    """Finds tags that are not closed and everything that a page could load."""

    def __init__(self):
        super().__init__()
        self.open, self.loaded, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self.loaded += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def evaluation():
    curves = {
        drive: {
            "frechet_alexnet": [0.2 + i, 0.5 + i],
            "sharpness": [1.0, 0.5],
            "saturation": [1.0, 0.4],
            "motion": [0.9, 0.3],
        }
        for i, drive in enumerate(("stroll", "idle", "spin"))
    }
    drifted = {
        "drift.frames": 480, "drift.stretch_seconds": 10.0, "drift.rollouts": 2, "drift.measure": "frechet_alexnet",
        "drift.last_over_first": 2.5, "drift.static": False, "drift.backend": "openvino",
        "drift.frechet_alexnet.floor": 0.1, "drift.frechet_alexnet.ceiling": 0.15,
        **{f"drift.{drive}.last_over_first": 2.5 for drive in curves},
    }  # fmt: skip
    report = {
        "weights_hash": "0123456789abcdef", "preset": "pocket", "stage": "<adversarial>", "world": "halls",
        "split": "held_seed", "clips": 2, "seconds": 12.5, "motion_energy.ratio": 0.8, "motion_energy.static": False,
        "control.yaw.slope": 0.5, "control.yaw.corr": None, "tokenizer.psnr": 25.0, "next.lpips": 0.1,
        "baseline.repeat.next.lpips": 0.2, "baseline.shift.next.lpips": 0.3, "fvd.16": 1234.5, "fvd.16.floor": 300.0,
        "fvd.16.ceiling": 400.0, "fvd.16.windows": 256, "frechet_alexnet.rollout": 0.4, "frechet_alexnet.next": 0.3,
        "frechet_alexnet.floor": 0.1, "frechet_alexnet.ceiling": 0.2, "frechet_alexnet.pictures": 48, **drifted,
    }  # fmt: skip
    pictures = list(np.random.default_rng(0).integers(0, 255, (3, 16, 24, 3), np.uint8))
    sheets = [
        Sheet("MAP01, clip 7", [0.0, 0.5, 65.0], [("real", pictures), ("generated", pictures)]),
        Sheet("spin", [0.0, 0.5, 65.0], [("spin", pictures)]),
    ]
    return Evaluation(report, Drift(drifted, curves, {}), sheets)


def test_the_page_is_well_formed_and_loads_nothing(evaluation):
    text = page.render(evaluation)
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert "script" not in checker.tags and "link" not in checker.tags and "iframe" not in checker.tags
    assert checker.loaded and all(value.startswith("data:image/webp;base64,") for value in checker.loaded)
    assert "http" not in text.replace("http-equiv", "") and "url(" not in text and "@import" not in text
    assert checker.tags.count("img") == 9 and checker.tags.count("figure") == 4 + 6
    assert 'name="viewport"' in text and "prefers-color-scheme:dark" in text


def test_the_page_says_what_the_report_says(evaluation):
    text = page.render(evaluation)
    assert "&lt;adversarial&gt;" in text and "<adversarial>" not in text
    for said in (
        "1,234",
        "openvino",
        "1:05",
        "0123456789ab",
        "real above generated",
        "aim 0.7 to 1.3",
        "aim at most 1.25",
    ):
        assert said in text, said
    assert text.count("✓ met") == 1 and text.count("✕ not met") == 2, "an aim without a figure is not shown"
    assert "<b>0.1</b>" in text, "better than both baselines"
    assert 'class="warning"' not in text


def test_a_static_world_is_said_first(evaluation):
    report = evaluation.report | {"motion_energy.static": True}
    assert 'class="warning"' in page.render(Evaluation(report, None, []))


def test_a_report_with_nothing_asked_for_is_a_page_too():
    bare = dict.fromkeys(("weights_hash", "preset", "stage", "world", "split", "clips"), "x") | {"seconds": 1}
    text = page.render(Evaluation(bare, None, []))
    assert "Drift" not in text and "Distances" not in text and "Control" in text


def test_charts_are_xml_within_their_frame():
    chart = charts.Chart("a < b", "note", 10.0, {"one": [0.0, 5.0, 2.0], "two": [1.0, 1.0, 9.0]}, {"floor": 3.0})
    tree = ElementTree.fromstring(charts.svg(chart))
    points = [float(v) for line in tree.iter("polyline") for v in re.split("[ ,]", line.get("points"))]
    assert len(points) == 12 and min(points) > 0 and max(points[::2]) < charts.WIDTH < 400
    assert max(points[1::2]) < charts.HEIGHT
    assert "floor" in "".join(tree.itertext()) and "two, 20 to 30 s: 9" in "".join(tree.itertext())
    long = charts.Chart("a", "note", 10.0, {"one": [1.0] * 60})
    assert "10 min" in "".join(ElementTree.fromstring(charts.svg(long)).itertext())


@pytest.mark.parametrize(("top", "step"), [(1.08, 0.5), (0.4, 0.1), (6.0, 2.0), (9.5, 2.5), (4100, 2000), (12, 5)])
def test_steps_are_round(top, step):
    assert charts.nice_step(top) == pytest.approx(step) and top / charts.nice_step(top) <= 4


def test_the_picture_of_the_curves(evaluation, tmp_path):
    pytest.importorskip("matplotlib")
    page.write_pages(evaluation, tmp_path / "page.html", tmp_path / "drift.png")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == page.render(evaluation)
    with Image.open(io.BytesIO((tmp_path / "drift.png").read_bytes())) as picture:
        assert picture.format == "PNG" and picture.width >= 1000


def test_without_matplotlib_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[evaluate\]'"):
        charts.check_matplotlib()


def test_other_splits_have_tables_of_their_own(evaluation):
    more = {"held_map.next.psnr": 17.25, "held_map.fvd.16": 99.0, "held_map.control.yaw.slope": 0.625}
    more |= {f"held_map.fvd.16.{end}": 1.0 for end in ("floor", "ceiling", "windows")} | {"held_map.fvd.few": True}
    report = evaluation.report | more | {"split": "held_seed, held_map"}
    text = page.render(Evaluation(report, None, []))
    for section in ("Picture by picture", "Distances", "Control"):
        assert text.count(f"<h2>{section}</h2>") == 1 == text.count(f"<h2>{section}, held_map</h2>")
    before, after = text.split("<h2>Picture by picture, held_map</h2>")
    assert "17.2" in after and "17.2" not in before and "<b>99</b>" in after and "0.625" in after
    assert "fewer than 256 windows" in after and "fewer than 256 windows" not in before
