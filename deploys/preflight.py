"""Tell what hosts lack before a deploy: every check, and what repairs it. Changes nothing."""

from roles.stages.admission import passed
from roles.stages.load import announced

passed(announced(several=True))
