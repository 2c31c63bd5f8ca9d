"""Prove that every host serves as planned: real completions, GPUs under load. Changes nothing."""

from roles.fleet import stages
from roles.fleet.admission import admitted
from roles.fleet.deploy import announced

fleet = announced()
stages.report(fleet)

if this_host := admitted(fleet):
    stages.validation(fleet, this_host)
