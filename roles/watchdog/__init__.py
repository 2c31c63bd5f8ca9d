"""Finds replicas that hang, takes them out of the rotation and restarts them. Pure code only."""

from roles.watchdog.quarantine import Quarantine as Quarantine
from roles.watchdog.quarantine import left_out as left_out
from roles.watchdog.render import HostWatch as HostWatch
from roles.watchdog.render import PeerHost as PeerHost
from roles.watchdog.settings import ServiceWatch as ServiceWatch
from roles.watchdog.settings import WatchdogSettings as WatchdogSettings
from roles.watchdog.state import PART as PART
from roles.watchdog.state import WatchdogState as WatchdogState
from roles.watchdog.state import parse_state as parse_state
