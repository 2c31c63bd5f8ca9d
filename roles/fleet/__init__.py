"""The whole fleet as an inventory declares it, checked and planned."""

from roles.fleet.build import build as build
from roles.fleet.build import unknown_hosts as unknown_hosts
from roles.fleet.build import with_hardware as with_hardware
from roles.fleet.command_line import LIFT as LIFT
from roles.fleet.command_line import REASON as REASON
from roles.fleet.command_line import SWITCHES as SWITCHES
from roles.fleet.command_line import TARGETS as TARGETS
from roles.fleet.fleet import Fleet as Fleet
from roles.fleet.fleet import Host as Host
from roles.fleet.hosts import hardware_from as hardware_from
from roles.fleet.launching import host_launch as host_launch
from roles.fleet.launching import served as served
from roles.fleet.routing import members_by_service as members_by_service
from roles.fleet.routing import routes as routes
from roles.fleet.saved_plan import saved_plan_problem as saved_plan_problem
from roles.fleet.targets import named_target as named_target
