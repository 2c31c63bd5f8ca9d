"""Validation: proof by real completions that replicas serve and their GPUs work. Pure code only."""

from roles.validation.observations import RECOGNITION_TOKENS as RECOGNITION_TOKENS
from roles.validation.observations import Endpoint as Endpoint
from roles.validation.observations import PlannedReplica as PlannedReplica
from roles.validation.settings import ValidationSettings as ValidationSettings
