"""Show what hosts lack before a deploy: every check, and what repairs it. Changes nothing."""

from roles.stages.admission import admit
from roles.stages.load import load
from roles.stages.validation import report

run = load()
report(run)
admit(run)
