"""nginx in front of all replicas of all hosts: one address, one API key."""

from roles.balancer.nginx import certificate_paths as certificate_paths
from roles.balancer.render import render_keys as render_keys
from roles.balancer.render import render_site as render_site
from roles.balancer.settings import BalancerSettings as BalancerSettings
from roles.balancer.upstream import Server as Server
from roles.balancer.upstream import replica_id as replica_id
from roles.balancer.upstream import servers as servers
