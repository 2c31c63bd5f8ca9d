"""The outcome of a check, and the report of a run: one type, one table, one JSON, one JUnit file.
Pure code only."""

from roles.checks.check import Check as Check
from roles.checks.check import Outcome as Outcome
from roles.checks.check import failed as failed
from roles.checks.check import of_host as of_host
from roles.checks.check import rank as rank
from roles.checks.check import worst as worst
from roles.checks.files import replace_file as replace_file
from roles.checks.report import brief as brief
from roles.checks.report import clean as clean
from roles.checks.report import printable as printable
from roles.checks.report import summary as summary
from roles.checks.report import table as table
from roles.checks.report import to_json as to_json
from roles.checks.report import to_junit as to_junit
from roles.checks.report import write_reports as write_reports
from roles.checks.run_report import Report as Report
from roles.checks.verdict import Ending as Ending
from roles.checks.verdict import HostOutcome as HostOutcome
from roles.checks.verdict import HostVerdict as HostVerdict
from roles.checks.verdict import verdict as verdict
