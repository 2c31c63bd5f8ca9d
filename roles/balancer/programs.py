"""The programs that can be the balancer by their names in an inventory, and their templates."""

from collections.abc import Mapping
from typing import Literal

from roles.balancer.haproxy.template import TEMPLATE as HAPROXY
from roles.balancer.nginx.template import TEMPLATE as NGINX
from roles.balancer.template import SiteTemplate

Program = Literal["nginx", "haproxy"]
DEFAULT: Program = "nginx"
TEMPLATES: Mapping[Program, SiteTemplate] = {"nginx": NGINX, "haproxy": HAPROXY}
