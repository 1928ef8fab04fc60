"""The scripts that train on one GPU: their commands and settings are those that exist."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import run
from generator.config import override
from generator.evaluation.compare import KINDS, asked_of
from generator.training.adaptation import AdaptationTraining
from generator.training.adversarial_settings import AdversarialTraining
from generator.training.consistency import ConsistencyTraining
from generator.training.decoder import DecoderTraining
from generator.training.refiner import RefinerTraining

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")


def told_by(script, tmp_path, *words):
    """The parsed commands that a script of docs/training gives to the python that it is told of."""
    stub = tmp_path / "python"
    stub.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(tmp_path / 'told')!r}, 'a').write(json.dumps(sys.argv[2:]) + '\\n')\n"
    )
    stub.chmod(0o755)
    subprocess.run(["bash", str(ROOT / "docs" / "training" / script), str(stub), *words], cwd=ROOT, check=True)
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    return [run.parser_for(words[0]).parse_args(words) for words in told]


def test_every_command_and_setting_of_the_shipped_worlds_last_stage_exists(tmp_path):
    collect, encode, decoder, refiner, calibrate = told_by("one-gpu.sh", tmp_path, "3", "some/world")
    assert (encode.stage, decoder.stage) == ("latents", "decoder")
    assert collect.out == encode.data == decoder.data and encode.latents == decoder.latents
    assert str(encode.tokenizer) == str(encode.parallax) == str(decoder.start) == "some/world"
    config = override(DecoderTraining(minutes=decoder.minutes), decoder.set, "decoder")
    assert config.minutes == 3 and config.resident and config.teach > 0 and config.crop == (10, 16)
    alone = override(RefinerTraining(minutes=refiner.minutes), refiner.set, "refiner")
    assert (refiner.stage, refiner.data) == ("refiner", collect.out) and alone.minutes == 3 and alone.together == 16
    assert refiner.start == f"{decoder.run}/snapshot" and calibrate.weights == refiner.run / "snapshot"


def test_the_comparison_trains_every_row_that_the_table_has(tmp_path):
    collect, encode, *stages, table = told_by("compare-one-gpu.sh", tmp_path, "0.5", "some/tokenizer")
    assert collect.out == encode.data == table.data and encode.latents == table.latents
    assert str(encode.tokenizer) == "some/tokenizer" and encode.preset == "aapt-pocket"
    made = {stage.run.name: stage for stage in stages}
    kinds = {"adaptation": AdaptationTraining, "consistency": ConsistencyTraining, "adversarial": AdversarialTraining}
    settings = {name: override(kinds[stage.stage](), stage.set, stage.stage) for name, stage in made.items()}
    assert {stage.latents for stage in stages} == {encode.latents} and made["teacher"].minutes == 1.5
    given = asked_of(table).given
    assert {name: kind.changes for name, kind in KINDS.items() if kind.changes is not None}.keys() == given.keys()
    for name, folder in given.items():
        assert folder == made[name].run / "snapshot" and made[name].stage == "adversarial"
        for setting, value in KINDS[name].changes.items():
            assert getattr(settings[name], setting) == value
    assert not settings["unrecycled"].recycle and made["no-recycled"].start == f"{made['unrecycled'].run}/snapshot"
    for name, before in (("extended-1", "adversarial"), ("extended-5", "extended-1")):
        assert made[name].start == f"{made[before].run}/snapshot"
        assert made[name].resume_discriminator_from == f"{made[before].run}/discriminator.safetensors"
