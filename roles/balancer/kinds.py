"""The programs that can be the balancer, by kind."""

from roles.balancer.balancer import Balancer
from roles.balancer.nginx.program import Nginx
from roles.balancer.settings import BalancerSettings

NGINX = Nginx()
KINDS: dict[str, Balancer] = {NGINX.kind: NGINX}


def balancer_of(settings: BalancerSettings) -> Balancer:
    """The program that settings ask for: nginx is the only one so far."""
    return KINDS["nginx"]


def certificate_paths(settings: BalancerSettings) -> tuple[str, str]:
    """Where the certificate and its key lie on a balancer."""
    return balancer_of(settings).certificate_paths(settings)
