"""Prepares a host for engines: shared memory, power limits and MIG slices. Pure code only."""

from roles.tuning.mig import with_mig as with_mig
from roles.tuning.mig import with_planned_mig as with_planned_mig
from roles.tuning.settings import TuningSettings as TuningSettings
from roles.tuning.state import PART as PART
from roles.tuning.state import HostTuning as HostTuning
from roles.tuning.state import parse_state as parse_state
from roles.tuning.steps import shm_wanted_mib as shm_wanted_mib
