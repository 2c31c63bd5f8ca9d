"""What a host reads of its own files to see that it serves as before."""

from pathlib import Path

import pytest

from roles.host import serving_again
from roles.launch.render import secrets_file


def test_port_and_name_are_read_from_the_configuration_file():
    text = "# x\nmodel: /srv/m\nserved-model-name: Qwen/Qwen2.5\nport: 8001\nhost: '::'\n"
    assert serving_again.setting(text, "port") == "8001"
    assert serving_again.setting(text, "served-model-name") == "Qwen/Qwen2.5"
    assert serving_again.setting(text, "host") == "::"
    assert serving_again.setting(text, "missing") == ""


@pytest.mark.parametrize("key", ["abc", 'a"b\\c$d`e'])
def test_the_key_is_read_as_it_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
):
    file = tmp_path / "engine.env"
    file.write_text(secrets_file(key, None).content)
    monkeypatch.setattr(serving_again, "SECRETS", str(file))
    assert serving_again.key() == key
