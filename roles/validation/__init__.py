"""Validation: real completions, planned GPUs that work, and a report with evidence."""

from roles.validation.balancer import Endpoint as Endpoint
from roles.validation.observations import PlannedReplica as PlannedReplica
from roles.validation.report import table as table
from roles.validation.report import to_json as to_json
from roles.validation.report import to_junit as to_junit
from roles.validation.settings import ValidationSettings as ValidationSettings
from roles.validation.verdicts import Verdict as Verdict
