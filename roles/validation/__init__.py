"""Validation: real completions, and planned GPUs that work. Pure code only."""

from roles.validation.observations import Endpoint as Endpoint
from roles.validation.observations import PlannedReplica as PlannedReplica
from roles.validation.settings import ValidationSettings as ValidationSettings
