"""Scenes: folders of a picture and a small YAML file; a picture alone is a scene too."""

import numpy as np
import pytest
from PIL import Image

from controls.errors import UserError
from generator.scene import SCENES, find_scene, list_scenes, load_picture, read_scene, scenes_of

YAML = "title: The hall\ncaption: 'Yes: a caption'\npicture: first.png\n"


@pytest.fixture
def scenes(tmp_path):
    for name in ("b-hall", "a-hall"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "scene.yaml").write_text(YAML)
        Image.new("RGB", (32, 20), (10, 20, 30)).save(tmp_path / name / "first.png")
    return tmp_path


def test_scenes_are_listed_by_name(scenes):
    found = list_scenes(scenes)
    assert [scene.name for scene in found] == ["a-hall", "b-hall"]
    assert (found[0].title, found[0].caption) == ("The hall", "Yes: a caption")
    assert find_scene("b-hall", scenes).picture == scenes / "b-hall" / "first.png"
    assert list_scenes(scenes / "nowhere") == []


def test_the_scenes_that_ship_are_whole():
    for scene in list_scenes():
        assert scene.title and load_picture(scene.picture, (256, 160)).shape == (160, 256, 3)


def test_a_scene_says_which_world_it_is_of(scenes):
    yaml = scenes / "a-hall" / "scene.yaml"
    yaml.write_text(YAML + "weights: still\n")
    found = list_scenes(scenes)
    assert [scene.home for scene in found] == [scenes.parent / "weights" / "still", None]
    assert scenes_of(scenes.parent / "weights" / "still", found) == found[:1]
    assert scenes_of(None, found) == found == scenes_of(scenes, found)
    yaml.write_text(YAML + "weights: ../../etc\n")
    with pytest.raises(UserError, match="'weights'"):
        list_scenes(scenes)


def test_every_world_that_ships_has_scenes_and_every_scene_a_world():
    worlds = {path.parent for path in (SCENES.parent / "weights").glob("*/config.json")}
    assert worlds and {scene.home for scene in list_scenes()} == worlds


def test_a_picture_is_a_scene(scenes):
    path = scenes / "a-hall" / "first.png"
    assert find_scene(str(path), scenes).picture == path


def test_a_wrong_name_is_guessed(scenes):
    with pytest.raises(UserError, match="a-hall"):
        find_scene("a-hal", scenes)


@pytest.mark.parametrize(
    "text",
    ["", "3", "title: x", "title: [1]\ncaption: x\npicture: first.png", YAML.replace("first", "second"),
     YAML.replace("first.png", "../a-hall/first.png"), "title: x\ntitle: y", "{", "a: &b 1\nc: *b"],
)  # fmt: skip
def test_a_damaged_scene_is_a_sentence(scenes, text):
    (scenes / "b-hall" / "scene.yaml").write_text(text)
    with pytest.raises(UserError):
        read_scene(scenes / "b-hall")


@pytest.mark.parametrize("size", [(32, 20), (8, 8), (64, 16)])
def test_pictures_are_cropped_about_their_centre(scenes, size):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 255
    Image.fromarray(wide).save(scenes / "wide.png")
    picture = load_picture(scenes / "wide.png", size)
    assert picture.shape == (size[1], size[0], 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, picture[:, ::-1])
    assert picture[:, size[0] // 2].min() > 200


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK"])
def test_pictures_of_other_kinds_are_read(scenes, mode):
    path = scenes / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.new(mode, (16, 16)).save(path)
    assert load_picture(path, (8, 8)).shape == (8, 8, 3)


def test_unreadable_pictures_are_sentences(scenes):
    (scenes / "text.png").write_text("not a picture")
    whole = (scenes / "a-hall" / "first.png").read_bytes()
    (scenes / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name in ("text.png", "cut.png", "absent.png", "a-hall"):
        with pytest.raises(UserError):
            load_picture(scenes / name, (8, 8))
