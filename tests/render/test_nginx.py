"""What nginx alone has: the text of its files, and balancers of an earlier version.

`python -m tests.render.test_nginx` writes the expected texts anew.
"""

import re
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from roles.balancer import operations
from roles.balancer.deployment import BalancerDeployment
from roles.balancer.nginx import paths
from roles.balancer.nginx.paths import SITE, UPSTREAMS
from roles.balancer.state import STATE
from roles.host import HostFile
from tests.unit.balancer.fleets import CLIENT_KEY, route, settings

from .balancer_host import BalancerHost
from .balancer_programs import AUDIO, CHAT, NGINX, make_certificate, site, texts
from .balancer_server import Client, asking, free_port, program, served, two_engines

EXPECTED = Path(__file__).parent / "nginx"
OLD = Path(__file__).parents[1] / "data" / "balancer-eaed66b"
TEXTS = [SITE, UPSTREAMS, STATE]


@pytest.mark.parametrize("path", TEXTS)
def test_text(tmp_path: Path, path: str):
    assert texts(NGINX, tmp_path)[path] == (EXPECTED / Path(path).name).read_text()


def test_only_the_key_of_the_service_is_right(tmp_path: Path):
    pattern, right = texts(NGINX, tmp_path)[paths.client_keys("code-7b")].rsplit(" ", 1)
    assert right == "1;\n"
    expression = pattern.strip('"').removeprefix("~")
    key = "sk-test.client~key+0123/456789=="
    for header in (f"code-7b Bearer {key}", f"code-7b bearer {key}"):
        assert re.search(expression, header)
    for header in (
        f"chat Bearer {key}",
        f"code-7b Bearer x{key}",
        f"code-7b Bearer {key}=",
        "code-7b",
    ):
        assert not re.search(expression, header)


def test_engines_get_their_own_key_or_none(tmp_path: Path):
    found = texts(NGINX, tmp_path)
    assert found[paths.engine_key("chat")].endswith(' "Bearer engine-key-0123456789";\n')
    assert found[paths.engine_key("code-7b")].endswith(' "";\n')


def test_an_own_template(tmp_path: Path):
    own = tmp_path / "own.j2"
    proxied = "proxy_pass http://llm_chat;"
    ports = "{% for s in sites %}{{ s.port }}{% endfor %}"
    own.write_text(f"include {{{{ upstreams_file }}}};\n{proxied}\n{ports}\n")
    text = site(NGINX, settings(tmp_path, template=own), [CHAT, AUDIO])[SITE]
    assert text == f"include {UPSTREAMS};\n{proxied}\n4438443"


def test_an_old_balancer_that_is_not_drained_first(tmp_path: Path):
    """Its keys are those of its service before anybody is asked, so that they can stay."""
    program("pgrep")
    make_certificate(NGINX, tmp_path)
    host, port = BalancerHost(tmp_path, NGINX), free_port()
    text = (OLD / "llm.conf").read_text().replace("listen 443 ", f"listen {port} ")
    text = "".join(line for line in text.splitlines(True) if "listen [::]" not in line)
    keys = HostFile(paths.OLD_KEYS, (OLD / "keys.conf").read_text(), mode="600")
    host.write([HostFile(SITE, text), keys])
    NGINX.install(tmp_path, {})
    with NGINX.running(tmp_path, port):
        given = settings(tmp_path, port=port, ipv6=False)
        deployment = BalancerDeployment(NGINX.balancer, given, [CHAT], "r")
        host.run(operations.install, deployment=deployment)
        assert deployment.old and deployment.old.upstream("qwen2.5-14b")
        assert paths.engine_key("qwen2.5-14b") in deployment.found.files
        assert host.reloads == 1 and host.standing.loaded
        assert len(deployment.warnings) == 4, "all four vanished"


def test_an_old_balancer_is_taken_over_without_a_lost_request(tmp_path: Path):
    program("pgrep")
    certificate = make_certificate(NGINX, tmp_path)
    with two_engines() as (port, engines, found):
        text = (OLD / "llm.conf").read_text().replace("listen 443 ", f"listen {port} ")
        text = "".join(line for line in text.splitlines(True) if "listen [::]" not in line)
        new = [f"{m.endpoint} " for m in found]
        for old, endpoint in zip(("10.0.0.1:8001 ", "10.0.0.2:8001 "), new, strict=True):
            text = text.replace(old, endpoint)
        keep = ("10.0.0.1:8002", "[fd00::3]")
        text = "".join(line for line in text.splitlines(True) if not any(k in line for k in keep))
        host = BalancerHost(tmp_path, NGINX)
        keys = HostFile(paths.OLD_KEYS, (OLD / "keys.conf").read_text(), mode="600")
        host.write([HostFile(SITE, text), keys])
        NGINX.install(tmp_path, {})
        with NGINX.running(tmp_path, port):
            client = Client(port, certificate, CLIENT_KEY)
            with asking(client) as statuses:
                id = "gpu2/qwen2.5-14b-0"
                host.drain(id)
                assert host.reloads == 2 and host.standing.loaded
                engines[1].requests.clear()
                assert served(client, engines[1:]) == (0,)
                host.undrain(id)
                assert min(served(client, engines)) > 0
                # The end of the deploy: the same service, written anew, with the same keys.
                service = "qwen2.5-14b"
                ids = [replace(m, id=f"{m.host}/{service}-0") for m in found]
                given = settings(tmp_path, port=port, ipv6=False)
                deployment = BalancerDeployment(NGINX.balancer, given, [route(service, *ids)], "r")
                host.run(operations.install, deployment=deployment)
                host.run(operations.write_site, deployment=deployment)
                host.run(operations.run_program, deployment=deployment)
                assert host.reloads == 4 and min(served(client, engines)) > 0
            assert set(statuses) == {200} and len(statuses) > 20
            left = host.standing.files
            assert paths.OLD_KEYS not in left and paths.engine_key(service) in left
            assert "upstream llm_qwen2.5-14b {" in host.read(UPSTREAMS)
            host.run(operations.install, deployment=deployment)
            assert host.run(operations.write_site, deployment=deployment) is None, "nothing differs"


if __name__ == "__main__":
    with TemporaryDirectory() as scratch:
        for target in TEXTS:
            (EXPECTED / Path(target).name).write_text(texts(NGINX, Path(scratch))[target])
