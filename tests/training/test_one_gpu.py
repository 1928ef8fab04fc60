"""The script that trains the shipped world on one GPU: its commands and settings are those that exist."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import run
from generator.config import override
from generator.training.decoder import DecoderTraining

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a script for bash")


def test_every_command_and_setting_of_the_script_exists(tmp_path):
    stub = tmp_path / "python"
    stub.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"open({str(tmp_path / 'told')!r}, 'a').write(json.dumps(sys.argv[2:]) + '\\n')\n"
    )
    stub.chmod(0o755)
    script = ROOT / "docs" / "training" / "one-gpu.sh"
    subprocess.run(["bash", str(script), str(stub), "3", "some/world"], cwd=ROOT, check=True)
    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    args = [run.parser_for(words[0]).parse_args(words) for words in told]
    collect, encode, decoder = args
    assert (encode.stage, decoder.stage) == ("latents", "decoder")
    assert collect.out == encode.data == decoder.data and encode.latents == decoder.latents
    assert str(encode.tokenizer) == str(encode.parallax) == str(decoder.start) == "some/world"
    config = override(DecoderTraining(minutes=decoder.minutes), decoder.set, "decoder")
    assert config.minutes == 3 and config.resident and config.teach > 0 and config.crop == (10, 16)
