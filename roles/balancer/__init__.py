"""The balancer in front of all replicas: routes, members, drains. Pure code only."""

from roles.balancer.files import make_key as make_key
from roles.balancer.files import read_key as read_key
from roles.balancer.given_certificate import check_name as check_name
from roles.balancer.kinds import balancer_of as balancer_of
from roles.balancer.kinds import balancers as balancers
from roles.balancer.kinds import certificate_paths as certificate_paths
from roles.balancer.route_settings import Keys as Keys
from roles.balancer.route_settings import RouteSettings as RouteSettings
from roles.balancer.route_settings import base_url as base_url
from roles.balancer.route_settings import keys_of as keys_of
from roles.balancer.route_settings import own_ports as own_ports
from roles.balancer.route_settings import route_conflicts as route_conflicts
from roles.balancer.routes import Match as Match
from roles.balancer.routes import Member as Member
from roles.balancer.routes import Route as Route
from roles.balancer.settings import BalancerSettings as BalancerSettings
from roles.balancer.settings import generated_key_file as generated_key_file
from roles.balancer.settings import needs_secrets as needs_secrets
from roles.balancer.state import BalancerState as BalancerState
from roles.balancer.state import drain_owners as drain_owners
from roles.balancer.state import in_service as in_service
from roles.balancer.state import parse_state as parse_state
from roles.balancer.upstreams import Drain as Drain
from roles.balancer.upstreams import Upstream as Upstream
from roles.balancer.upstreams import servers as servers
