from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from roles.balancer import Match, RouteSettings, base_url, keys_of, route_conflicts

from .fleets import CLIENT_KEY, ENGINE_KEY, private, settings


@pytest.mark.parametrize(
    ("values", "location"),
    [
        ({}, "/v1/"),
        ({"path_prefix": "/"}, "/v1/"),
        ({"path_prefix": "/chat"}, "/chat/v1/"),
        ({"path_prefix": "/team/chat-7.b/"}, "/team/chat-7.b/v1/"),
        ({"server_name": "Chat.example.com"}, "/v1/"),
        ({"port": 8443}, "/v1/"),
    ],
)
def test_locations(values: dict[str, Any], location: str):
    assert RouteSettings.model_validate(values).match.location == location


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path_prefix": "chat"}, "is not a path such as /chat"),
        ({"path_prefix": "//chat"}, "is not a path"),
        ({"path_prefix": "/chat;x"}, "is not a path"),
        ({"path_prefix": "/ch at"}, "is not a path"),
        ({"path_prefix": "/.."}, "is not a path"),
        ({"path_prefix": "/v1"}, "which the balancer serves itself"),
        ({"path_prefix": "/chat/v1"}, "which the balancer serves itself"),
        ({"path_prefix": "/health"}, "which the balancer serves itself"),
        ({"server_name": "_"}, "is not a DNS name"),
        ({"server_name": "a b"}, "is not a DNS name"),
        ({"port": 0}, "greater than or equal to 1"),
        ({"path_prefix": "/a", "port": 8443}, "path_prefix and port exclude each other"),
        ({"server_name": "a.b", "port": 8443}, "server_name and port exclude each other"),
        ({"api_key_file": "/no/such"}, "/no/such is not there"),
        ({"unknown": 1}, "Extra inputs"),
    ],
)
def test_what_is_refused(values: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        RouteSettings.model_validate(values)


OWN = "key-of-its-own-0123"


@pytest.mark.parametrize(
    ("route", "balancer", "keys"),
    [
        ((), ("api_key_file", "engine_key_file"), (CLIENT_KEY, ENGINE_KEY)),
        (("api_key_file",), ("api_key_file", "engine_key_file"), (OWN, ENGINE_KEY)),
        (("engine_key_file",), ("api_key_file", "engine_key_file"), (CLIENT_KEY, OWN)),
        (("api_key_file",), (), (OWN, OWN)),
        ((), (), (None, None)),
    ],
)
def test_keys(
    tmp_path: Path,
    route: tuple[str, ...],
    balancer: tuple[str, ...],
    keys: tuple[str | None, str | None],
):
    own = private(tmp_path / "own", OWN)
    given = settings(tmp_path)
    found = keys_of(
        RouteSettings.model_validate(dict.fromkeys(route, own)), given if balancer else None
    )
    assert (found.client, found.engine) == keys
    assert OWN not in repr(found) and CLIENT_KEY not in repr(found)


@pytest.mark.parametrize(
    ("match", "values", "endpoint", "url"),
    [
        (Match(), {}, None, "https://10.0.0.9:443"),
        (Match("/code"), {"port": 8443}, None, "https://10.0.0.9:8443/code"),
        (Match(port=9443), {}, "https://lb", "https://10.0.0.9:9443"),
        (Match(server_name="v.example.com"), {}, "https://lb", "https://v.example.com:443"),
        (Match("/code"), {}, "https://lb", "https://lb/code"),
        # The name of a certificate that the balancer made itself may resolve nowhere.
        (Match(), {"server_name": "llm.example.com"}, None, "https://10.0.0.9:443"),
    ],
)
def test_urls(tmp_path: Path, match: Match, values: dict[str, Any], endpoint: str | None, url: str):
    assert base_url(settings(tmp_path, **values), match, "10.0.0.9", endpoint) == url


def test_urls_of_a_given_certificate_and_of_ipv6(tmp_path: Path):
    given = settings(tmp_path)
    assert base_url(given, Match(), "fd00::9") == "https://[fd00::9]:443"
    named = given.model_copy(
        update={"certificate_file": tmp_path / "x", "server_name": "llm.example.com"}
    )
    assert base_url(named, Match(), "fd00::9") == "https://llm.example.com:443"


@pytest.mark.parametrize(
    ("routes", "clashing"),
    [
        ([{}], []),
        ([{}, {}], [1]),
        ([{}, {"path_prefix": "/"}], [1]),
        ([{}, {"path_prefix": "/a"}, {"path_prefix": "/a/"}], [2]),
        ([{"path_prefix": "/a"}, {"path_prefix": "/a/b"}], []),
        ([{}, {"server_name": "a.example.com"}, {"port": 8443}], []),
        ([{"server_name": "a.example.com"}, {"server_name": "A.example.com"}], [1]),
        ([{"port": 8443}, {}, {"port": 8443}], [2]),
        ([{}, {"port": 443}], [1]),
        ([{}, {"server_name": "llm.example.com"}], [1]),
    ],
)
def test_clashes(tmp_path: Path, routes: list[dict[str, Any]], clashing: list[int]):
    given = {n: RouteSettings.model_validate(route) for n, route in enumerate(routes)}
    found = route_conflicts(given, settings(tmp_path, server_name="llm.example.com"))
    assert [problem.partition(":")[0] for problem in found] == [
        f"services[{number}].route" for number in clashing
    ]
