"""What a host must have before anything is installed on it. Pure code only."""

from roles.preflight.needs import BalancerHost as BalancerHost
from roles.preflight.needs import HostNeeds as HostNeeds
from roles.preflight.needs import Served as Served
from roles.preflight.needs import engine_host as engine_host
from roles.preflight.needs import without_engine as without_engine
