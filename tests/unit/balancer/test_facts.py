import pytest
from pyinfra.api.exceptions import FactProcessError

from roles.balancer.facts import CertificateNames, Completions, NginxState


@pytest.mark.parametrize(
    ("output", "state"),
    [
        (["enabled", "active", "ab12", "ab12"], (True, True, True)),
        (["disabled", "inactive", "ab12", "cd34"], (False, False, False)),
        (["", "", "ab12", ""], (False, False, False)),
        (["enabled", "active", "ab12"], (True, True, False)),
    ],
)
def test_nginx_state(output: list[str], state: tuple[bool, bool, bool]):
    found = NginxState().process(output)
    assert (found["enabled"], found["active"], found["loaded"]) == state


def test_completions():
    assert Completions().process(["a warning", '{"gpu1/r0": {"ok": true}}']) == {
        "gpu1/r0": {"ok": True}
    }
    with pytest.raises(FactProcessError, match="could not be asked: Traceback"):
        Completions().process(["Traceback"])


@pytest.mark.parametrize(
    "output", [[], ["[]"], ["7"], ['{"a": 1}'], ['{"a": {}}'], ['{"a": {"ok": false}}']]
)
def test_completions_of_another_form(output: list[str]):
    with pytest.raises(FactProcessError, match="could not be asked"):
        Completions().process(output)


@pytest.mark.parametrize("output", [[], ["enabled"], ["enabled", "active"]])
def test_no_nginx_state(output: list[str]):
    with pytest.raises(FactProcessError, match="not the state of nginx"):
        NginxState().process(output)


def test_certificate_names():
    assert CertificateNames().process(["X509v3 …:", "    DNS:a, IP Address:10.0.0.1"]) == {
        "DNS:a",
        "IP:10.0.0.1",
    }
