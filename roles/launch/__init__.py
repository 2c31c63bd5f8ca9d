"""Units that run replicas: their files, and the transaction that moves a host to new ones."""

from roles.launch.difference import replica_changes as replica_changes
from roles.launch.host_launch import HostLaunch as HostLaunch
from roles.launch.parts import Member as Member
from roles.launch.render import GIVEN_PORTS as GIVEN_PORTS
from roles.launch.render import Assignment as Assignment
from roles.launch.render import alike as alike
from roles.launch.render import internal_ports as internal_ports
from roles.launch.render import listen_address as listen_address
from roles.launch.settings import LaunchSettings as LaunchSettings
from roles.launch.state import PART as PART
from roles.launch.state import Change as Change
from roles.launch.state import LaunchState as LaunchState
from roles.launch.state import parse_state as parse_state
