"""The programs that can be the balancer, by kind."""

from collections.abc import Collection, Mapping

from roles.balancer.balancer import Balancer
from roles.balancer.haproxy.program import Haproxy
from roles.balancer.nginx.program import Nginx
from roles.balancer.settings import BalancerSettings

KINDS: Mapping[str, Balancer] = {"nginx": Nginx(), "haproxy": Haproxy()}


def balancer_of(settings: BalancerSettings) -> Balancer:
    """The program that settings ask for."""
    return KINDS[settings.program]


def balancers() -> Collection[Balancer]:
    """All programs that can be the balancer."""
    return KINDS.values()


def certificate_paths(settings: BalancerSettings) -> tuple[str, str]:
    """Where the certificate and its key lie on a balancer."""
    return balancer_of(settings).certificate_paths(settings)
