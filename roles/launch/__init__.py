"""Launch units that run replicas: their files, and how a host moves from the old to the new."""

from roles.launch.host_launch import HostLaunch as HostLaunch
from roles.launch.render import INTERNAL_PORTS as INTERNAL_PORTS
from roles.launch.render import VISIBLE_DEVICES as VISIBLE_DEVICES
from roles.launch.render import unit_name as unit_name
from roles.launch.settings import LaunchSettings as LaunchSettings
