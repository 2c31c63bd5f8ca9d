"""Prove that every host serves as planned: real completions, GPUs under load. Changes nothing."""

from roles.stages import stages
from roles.stages.admission import admitted
from roles.stages.load import announced

fleet = announced()
stages.report(fleet)

if this_host := admitted(fleet):
    stages.validation(fleet, this_host)
