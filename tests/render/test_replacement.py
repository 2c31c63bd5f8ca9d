"""One balancer program takes another's place on a host, with both for real."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from roles.balancer import operations
from roles.balancer.deployment import BalancerDeployment
from tests.unit.balancer.fleets import CLIENT_KEY, route, settings

from .balancer_host import BalancerHost
from .balancer_programs import NAMES, PROGRAMS, Program, files, make_certificate, moved
from .balancer_server import Client, listens, program, served, two_engines

# Units are the programs themselves; one that is enabled has a file.
SYSTEMCTL = """#!/bin/sh
cd {folder}
start() {{
    case $1 in
        nginx) nginx -c {folder}/etc/nginx/nginx.conf;;
        haproxy) {haproxy};;
    esac > $1.out 2>&1 &
    for _ in $(seq 100); do
        [ -e $1.pid ] && kill -0 $(cat $1.pid) 2>/dev/null && return 0
        kill -0 $! 2>/dev/null || return 1
        sleep 0.1
    done
}}
stop() {{
    [ -e $1.pid ] || return 0
    kill $(cat $1.pid) 2>/dev/null
    while kill -0 $(cat $1.pid) 2>/dev/null; do sleep 0.1; done
    rm -f $1.pid
}}
case "$1 $2" in
    "enable --now") touch $3.enabled; start $3;;
    "disable --now") rm -f $3.enabled; stop $3;;
    enable*) touch $2.enabled;;
    restart*) stop $2; start $2;;
    is-active*) [ -e $2.pid ] && echo active || echo inactive;;
    is-enabled*) [ -e $2.enabled ] && echo enabled || echo disabled;;
    "reload nginx") echo nginx >> reloads; kill -HUP $(cat nginx.pid);;
    "reload haproxy") echo haproxy >> reloads; kill -USR2 $(cat haproxy.pid);;
esac
"""


class Host(BalancerHost):
    """A host with both programs, of which one serves."""

    def __init__(self, folder: Path, serving: Program):
        super().__init__(folder, serving)
        words = " ".join(PROGRAMS["haproxy"].command).format(folder=folder)
        stub = folder / "bin" / "systemctl"
        stub.write_text(SYSTEMCTL.format(folder=folder, haproxy=words))
        for one in PROGRAMS.values():
            program(one.kind)
            one.install(folder, {})

    def states(self) -> dict[str, tuple[bool, ...]]:
        """Of each program whether it is enabled, and whether it is active."""
        return {
            kind: tuple((self.folder / f"{kind}.{file}").exists() for file in ("enabled", "pid"))
            for kind in PROGRAMS
        }

    def deploy(self, deployment: BalancerDeployment) -> list[str]:
        """The operations of a deploy that changed something."""
        steps: dict[str, dict[str, Any]] = {
            "install": {},
            "make_certificate": {"names": NAMES},
            "write_site": {},
            "run_program": {},
        }
        return [
            name
            for name, more in steps.items()
            if self.run(getattr(operations, name), deployment=deployment, **more)
        ]


@contextmanager
def serving(folder: Path, first: Program) -> Iterator[tuple[Host, Client, Any, Any]]:
    """A host where a program serves two engines, of which an operator has the second drained."""
    certificate = make_certificate(first, folder)
    with two_engines() as (port, engines, found):
        host = Host(folder, first)
        given = settings(folder, port=port, ipv6=False, program=first.kind)
        host.write(files(first, given, [route("chat", *found)]))
        try:
            assert host.shell(first.balancer.start_script()).returncode == 0
            host.shell(first.balancer.enable_script())
            yield host, Client(port, certificate, CLIENT_KEY), engines, found
        finally:
            for kind in PROGRAMS:
                host.shell(f"systemctl disable --now {kind}")


@pytest.mark.parametrize("kind", PROGRAMS)
def test_a_program_takes_the_place_of_the_other(tmp_path: Path, kind: str):
    new, (old,) = PROGRAMS[kind], [one for one in PROGRAMS.values() if one.kind != kind]
    with serving(tmp_path, old) as (host, client, engines, found):
        known = client.certificate.read_bytes()
        host.drain("gpu2/r-0", planned=new)
        assert (tmp_path / "reloads").read_text() == f"{old.kind}\n", "it serves until the end"
        assert served(client, engines)[1] == 0
        given = settings(tmp_path, port=client.port, ipv6=False, program=kind)
        routes = [route("chat", *found)]
        deployment = BalancerDeployment(new.balancer, given, routes, "r")
        assert host.deploy(deployment) == ["make_certificate", "write_site", "run_program"]
        assert host.states() == {old.kind: (False, False), new.kind: (True, True)}
        # The operator's drain stays.
        client.certificate = Path(moved(new.self_signed, tmp_path))
        assert client.certificate.read_bytes() == known, "clients may have pinned it"
        assert served(client, engines) == (8, 0)
        assert not Path(moved(old.site, tmp_path)).exists()
        assert not Path(moved(old.upstreams, tmp_path)).exists()
        again = BalancerDeployment(new.balancer, given, routes, "r")
        assert host.deploy(again) == [] and again.replaced == ()


@pytest.mark.parametrize("kind", PROGRAMS)
def test_the_old_program_comes_back_where_the_new_one_does_not_start(tmp_path: Path, kind: str):
    new, (old,) = PROGRAMS[kind], [one for one in PROGRAMS.values() if one.kind != kind]
    with serving(tmp_path, old) as (host, client, engines, found), socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        given = settings(tmp_path, port=other.getsockname()[1], ipv6=False, program=kind)
        deployment = BalancerDeployment(new.balancer, given, [route("chat", *found)], "r")
        with pytest.raises(AssertionError, match=f"{kind} did not start"):
            host.deploy(deployment)
        assert host.states()[old.kind] == (True, True) and not host.states()[kind][0]
        assert listens(client.port) and min(served(client, engines)) > 0


def test_files_that_are_refused_stop_nobody(tmp_path: Path):
    old, new = PROGRAMS["nginx"], PROGRAMS["haproxy"]
    with serving(tmp_path, old) as (host, client, engines, found):
        own = tmp_path / "own.j2"
        own.write_text("frontend f\n    nonsense\n    use_backend llm_chat\n")
        given = settings(tmp_path, port=client.port, program="haproxy", template=own)
        deployment = BalancerDeployment(new.balancer, given, [route("chat", *found)], "r")
        with pytest.raises(AssertionError, match=r"llm.cfg:2.*unknown keyword 'nonsense'"):
            host.deploy(deployment)
        assert host.states()["nginx"] == (True, True) and min(served(client, engines)) > 0
