"""What the one question says of weights: folders and GGUF files, asked of this machine."""

import subprocess
from dataclasses import replace
from pathlib import Path

from roles.host.question import parse_answers, question
from roles.preflight.answers import _files
from roles.preflight.questions import Questions, parts_of


def test_a_gguf_file_is_seen_as_a_folder_is(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    places = (f"{tmp_path}/model", f"{tmp_path}/model.gguf", f"{tmp_path}/none")
    # Whoever runs the tests can read these without sudo.
    by_root = replace(parts_of(Questions(weights_folders=places))[1], root=False)
    script = question([by_root])
    done = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=True)
    text = parse_answers(done.stdout.splitlines())[by_root.name]["weights"]
    found = dict(_files(text.splitlines()))
    assert [found[place].real for place in places] == [places[0], places[1], None]
    assert found[places[1]].sizes == (("model.gguf", 4),)
