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


def test_certificate_names():
    assert CertificateNames().process(["X509v3 …:", "    DNS:a, IP Address:10.0.0.1"]) == {
        "DNS:a",
        "IP:10.0.0.1",
    }
