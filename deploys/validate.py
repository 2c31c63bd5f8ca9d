"""Prove that every host serves as planned: real completions, GPUs under load. Changes nothing."""

from roles.stages.admission import admit_as_deployed
from roles.stages.keys import engine_key
from roles.stages.load import load
from roles.stages.validation import report, validation

run = load()
report(run)
engine_key(run, make=False)

if admit_as_deployed(run):
    validation(run)
