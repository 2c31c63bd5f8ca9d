import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.balancer import BalancerSettings, Keys, RouteSettings, keys_of
from roles.balancer.nginx.paths import UPSTREAMS
from roles.balancer.programs import TEMPLATES as OURS
from roles.host.templates import TEMPLATES

from .fleets import CLIENT_KEY, ENGINE_KEY, private, settings


def test_defaults(tmp_path: Path):
    found = settings(tmp_path)
    assert (found.port, found.server_name, found.max_body_mib) == (443, "_", 32)
    assert keys_of(RouteSettings(), found) == Keys(CLIENT_KEY, ENGINE_KEY)


def test_engines_never_fall_back_to_the_clients_key(tmp_path: Path):
    key = private(tmp_path / "key", CLIENT_KEY)
    found = BalancerSettings.model_validate({"api_key_file": key})
    with pytest.raises(ValueError, match=r"balancer\.engine_key_file: is missing"):
        keys_of(RouteSettings(), found)


def test_a_relative_path_starts_at_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    private(tmp_path / "key", CLIENT_KEY)
    monkeypatch.chdir(tmp_path)
    found = BalancerSettings.model_validate({"api_key_file": "key", "engine_key_file": "key"})
    assert keys_of(RouteSettings(), found).client == CLIENT_KEY


def test_every_field_is_described():
    undescribed = [
        name for name, field in BalancerSettings.model_fields.items() if not field.description
    ]
    assert undescribed == []


def test_no_setting_shows_a_key(tmp_path: Path):
    found = settings(tmp_path)
    assert CLIENT_KEY not in repr(found) + found.model_dump_json()


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("", 0o600, "is empty: write a key into it"),
        ("\n", 0o600, "is empty: write a key into it"),
        ("short\n", 0o600, "has fewer than 16 characters: take more"),
        (f"{CLIENT_KEY}\nsecond", 0o600, "has more than one line: leave the key alone in it"),
        (f"{CLIENT_KEY}\n\n", 0o600, "may hold only letters"),
        (f"{CLIENT_KEY}€", 0o600, "may hold only letters"),
        (f"a {CLIENT_KEY}", 0o600, "may hold only letters"),
        (f'{CLIENT_KEY}"; #', 0o600, "may hold only letters"),
        (f"$HOME{CLIENT_KEY}", 0o600, "may hold only letters"),
        (CLIENT_KEY, 0o640, "others may read .*key .mode 640.: run chmod 600"),
        (CLIENT_KEY, 0o604, "others may read .*key .mode 604.: run chmod 600"),
    ],
)
@pytest.mark.parametrize("field", ["api_key_file", "engine_key_file"])
def test_a_bad_key_file(tmp_path: Path, field: str, text: str, mode: int, message: str):
    files = {name: private(tmp_path / name, CLIENT_KEY) for name in ("api_key_file", field)}
    files[field] = private(tmp_path / "key", text, mode)
    with pytest.raises(ValidationError, match=message) as error:
        BalancerSettings.model_validate(files)
    assert CLIENT_KEY not in str(error.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"api_key_file": "/no/such"}, "/no/such is not there: create it, or correct the path"),
        ({"api_key_file": "/"}, "/ is a folder; name a regular file"),
        ({"template": "/no/such"}, "/no/such is not there"),
        ({"server_name": "a b"}, "'a b' is not a DNS name: give one such as llm.example.com"),
        ({"server_name": "a;b"}, "is not a DNS name"),
        ({"server_name": 'a"b'}, "is not a DNS name"),
        ({"server_name": "a\n"}, "is not a DNS name"),
        ({"server_name": "~^a"}, "is not a DNS name"),
        ({"server_name": ""}, "is not a DNS name"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"fail_timeout_s": 10000}, "less than or equal to 300"),
        ({"read_timeout_s": 0}, "greater than 0"),
        ({"certificate_file": "{folder}/cert"}, "belong together: give both, or none"),
        ({"certificate_key_file": "{folder}/cert"}, "belong together: give both, or none"),
        ({"certificate_file": "{folder}/api.key"}, "is not a PEM file: convert it with openssl"),
        ({"certificate_key_file": "{folder}/open"}, "others may read .*open"),
        ({"unknown": 1}, "Extra inputs are not permitted"),
    ],
)
def test_what_is_refused(tmp_path: Path, values: dict[str, Any], message: str):
    pem = "-----BEGIN SOMETHING-----\n"
    private(tmp_path / "cert", pem)
    private(tmp_path / "open", pem, 0o644)
    key = private(tmp_path / "api.key", CLIENT_KEY)
    given = {
        name: value.format(folder=tmp_path) if isinstance(value, str) else value
        for name, value in values.items()
    }
    with pytest.raises(ValidationError, match=message):
        BalancerSettings.model_validate({"api_key_file": key} | given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ ipv6 }}\n{% for x in %}", r"own.j2, line 2: Expected an expression"),
        ("\n\n{{ prot }}", r"own.j2, line 3: 'prot' is undefined"),
        ("{% for s in sites %}\n{{ s.ip }}\n{% endfor %}", r"line 2: .* has no attribute 'ip'"),
        ("\n{{ max_body_mib + 'x' }}", r"line 2: unsupported operand"),
        ("{% include 'other' %}", r"line 1: no loader"),
    ],
)
def test_a_template_that_cannot_be_rendered(tmp_path: Path, text: str, message: str):
    own = tmp_path / "own.j2"
    own.write_text(text)
    with pytest.raises(ValidationError, match=message) as error:
        settings(tmp_path, template=own)
    assert error.value.errors()[0]["loc"] == ("template",)


INCLUDE = "include {{ upstreams_file }};\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{% for s in servers %}{{ s.endpoint }};{% endfor %}", "put `include {{ upstreams_file"),
        ("", "does not include /etc/nginx/llm/upstreams.conf"),
        ("# include {{ upstreams_file }};", "does not include"),
        ("includes {{ upstreams_file }};", "does not include"),
        (INCLUDE + "upstream own { server 10.0.0.1:80; }", "has an upstream of its own, own,"),
        (INCLUDE + "proxy_pass http://10.0.0.1:8001;", "sends requests to http://10.0.0.1:8001"),
        (INCLUDE + "proxy_pass http://llm;", "sends requests to http://llm"),
        (INCLUDE + "proxy_pass http://$target;", "sends requests to http://$target"),
        (INCLUDE + "a '#'; proxy_pass http://own;", "sends requests to http://own"),
        (INCLUDE + "location /x {proxy_pass http://own;}", "sends requests to http://own"),
    ],
)
def test_a_template_that_would_ignore_drains(tmp_path: Path, text: str, message: str):
    own = tmp_path / "own.j2"
    own.write_text(text)
    with pytest.raises(ValidationError, match=re.escape(message)) as error:
        settings(tmp_path, template=own)
    assert "templates/nginx/llm.conf.j2" in str(error.value), "what to do"
    assert error.value.errors()[0]["loc"] == ("template",)


@pytest.mark.parametrize(
    "text",
    [
        f'include "{UPSTREAMS}"; proxy_pass http://llm_a; # upstream own {{ server 10.0.0.1; }}',
        INCLUDE + "proxy_pass http://llm_chat;",
        INCLUDE + 'proxy_pass "http://llm_qwen2.5-14b/v1/";',
        INCLUDE + "{% for s in sites %}{% for l in s.locations %}"
        "location {{ l.path }} { proxy_pass {{ l.target }}; }{% endfor %}{% endfor %}",
    ],
)
def test_a_template_that_keeps_to_drains(tmp_path: Path, text: str):
    own = tmp_path / "own.j2"
    own.write_text(text)
    assert settings(tmp_path, template=own).template == own


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "sends requests to no backend"),
        ("#use_backend llm_a", "sends requests to no backend"),
        ("backend own\n  server a 10.0.0.1:80", "has backend own of its own"),
        ("listen own\n  server a 10.0.0.1:80", "has listen own of its own"),
        ("frontend f\n  'server' a 10.0.0.1:80", "has `server`"),
        ("frontend f\n\tdispatch 10.0.0.1:80", "has `dispatch`"),
        ("frontend f\n  use_backend own", "sends requests to own"),
        ("frontend f\n  use_backend llm_a\n  default_backend own # x", "sends requests to own"),
        ("frontend f\n  use_backend %[var(txn.x)]", "sends requests to %[var(txn.x)]"),
        ("{% for s in servers %}{% endfor %}", "'servers' is undefined"),
    ],
)
def test_a_template_of_haproxy_that_would_ignore_drains(tmp_path: Path, text: str, message: str):
    own = tmp_path / "own.j2"
    own.write_text(text)
    with pytest.raises(ValidationError, match=re.escape(message)) as error:
        settings(tmp_path, program="haproxy", template=own)
    assert "templates/haproxy/llm.cfg.j2" in str(error.value), "what to do"
    assert error.value.errors()[0]["loc"] == ("template",)


@pytest.mark.parametrize(("program", "file"), [(p, one.file) for p, one in OURS.items()])
def test_a_template_that_can_be_rendered(tmp_path: Path, program: str, file: str):
    own = tmp_path / "own.j2"
    own.write_text((TEMPLATES / file).read_text())
    assert settings(tmp_path, program=program, template=own, port=8443).template == own


def test_a_program_that_is_none(tmp_path: Path):
    with pytest.raises(ValidationError, match="'nginx' or 'haproxy'"):
        settings(tmp_path, program="caddy")


def test_a_certificate_and_its_key(tmp_path: Path):
    pairs = [pair(tmp_path / name) for name in ("a", "b")]
    for certificate, key in pairs:
        settings(tmp_path, certificate_file=certificate, certificate_key_file=key)
    with pytest.raises(ValidationError, match=r"b\.key is not the key of .*a\.crt: give"):
        settings(tmp_path, certificate_file=pairs[0][0], certificate_key_file=pairs[1][1])
    # Whoever reviews a plan has no keys.
    given = {"certificate_file": pairs[0][0], "certificate_key_file": pairs[1][1]}
    BalancerSettings.model_validate({"api_key_file": "x"} | given, context={"secrets": False})


def pair(path: Path) -> tuple[Path, Path]:
    certificate, key = path.with_suffix(".crt"), path.with_suffix(".key")
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256"
    command = f"openssl req -x509 {curve} -nodes -subj /CN=x -keyout {key} -out {certificate}"
    subprocess.run(command.split(), check=True, capture_output=True)
    key.chmod(0o600)
    return certificate, key


@pytest.mark.parametrize("name", ["_", "llm", "llm.example.com", "*.example.com", "10.0.0.10"])
def test_server_names(tmp_path: Path, name: str):
    assert settings(tmp_path, server_name=name).server_name == name
