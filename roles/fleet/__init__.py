"""The whole fleet as an inventory declares it: checked once, typed, with its plan."""

from roles.declaration.problems import DeclarationError as DeclarationError
from roles.declaration.settings import FleetSettings as FleetSettings
from roles.declaration.settings import HostSettings as HostSettings
from roles.fleet.fleet import BALANCERS as BALANCERS
from roles.fleet.fleet import GPU_HOSTS as GPU_HOSTS
from roles.fleet.fleet import Declaration as Declaration
from roles.fleet.fleet import DeclaredHost as DeclaredHost
from roles.fleet.fleet import Fleet as Fleet
from roles.fleet.fleet import Host as Host
from roles.fleet.fleet import build as build
