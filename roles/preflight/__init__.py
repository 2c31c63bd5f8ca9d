"""Checks of what a host must have before anything is installed on it. Pure code only."""

from roles.preflight.checks import checks as checks
from roles.preflight.checks import parts as parts
from roles.preflight.context import OTHER_DEPLOY as OTHER_DEPLOY
from roles.preflight.needs import BalancerHost as BalancerHost
from roles.preflight.needs import HostNeeds as HostNeeds
from roles.preflight.needs import ServiceOnHost as ServiceOnHost
from roles.preflight.needs import engine_host as engine_host
from roles.preflight.needs import without_engine as without_engine
