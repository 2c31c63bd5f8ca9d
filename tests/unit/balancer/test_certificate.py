import pytest

from roles.balancer.certificate import alternative_names, parse_names


@pytest.mark.parametrize(
    ("server_name", "address", "names"),
    [
        ("_", "10.0.0.10", ("IP:10.0.0.10",)),
        ("llm.example.com", "10.0.0.10", ("DNS:llm.example.com", "IP:10.0.0.10")),
        ("10.0.0.10", "10.0.0.10", ("IP:10.0.0.10",)),
        ("_", "fd00:0::10", ("IP:fd00::10",)),
        ("_", "lb.internal", ("DNS:lb.internal",)),
    ],
)
def test_names(server_name: str, address: str, names: tuple[str, ...]):
    assert alternative_names(server_name, address) == names


def test_what_openssl_prints():
    text = """X509v3 Subject Alternative Name:
    DNS:llm.example.com, IP Address:10.0.0.10, IP Address:FD00:0:0:0:0:0:0:10
"""
    assert parse_names(text) == {"DNS:llm.example.com", "IP:10.0.0.10", "IP:fd00::10"}


def test_no_certificate():
    assert parse_names("") == frozenset()
