"""Tell what hosts lack before a deploy: every check, and what repairs it. Changes nothing."""

from roles.fleet.admission import passed
from roles.fleet.deploy import announced

passed(announced(several=True))
