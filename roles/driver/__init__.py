"""The GPU driver of a host: which version, from where, and how it is loaded. Pure code only."""

from roles.driver.choice import Choice as Choice
from roles.driver.choice import choose as choose
from roles.driver.decision import NEEDED_MIB as NEEDED_MIB
from roles.driver.decision import good_enough as good_enough
from roles.driver.declared import problems_of_declaration as problems_of_declaration
from roles.driver.packages import plan as plan
from roles.driver.remediated import REMEDIATED as REMEDIATED
from roles.driver.remediated import REMEDIATED_BY_ANOTHER_DRIVER as REMEDIATED_BY_ANOTHER_DRIVER
from roles.driver.remediated import REMEDIATED_BY_REBOOT as REMEDIATED_BY_REBOOT
from roles.driver.settings import DriverSettings as DriverSettings
from roles.driver.state import PART as PART
from roles.driver.state import DriverState as DriverState
from roles.driver.state import has_own_key as has_own_key
from roles.driver.state import parse_state as parse_state
from roles.driver.suited import is_amd as is_amd
from roles.driver.system import OperatingSystem as OperatingSystem
