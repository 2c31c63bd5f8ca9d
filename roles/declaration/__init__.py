"""An inventory as it is written: its settings, its recordings, and its problems."""

from roles.declaration.declaration import BALANCERS as BALANCERS
from roles.declaration.declaration import GPU_HOSTS as GPU_HOSTS
from roles.declaration.declaration import ROLES as ROLES
from roles.declaration.declaration import Declaration as Declaration
from roles.declaration.declaration import DeclaredHost as DeclaredHost
from roles.declaration.files import InventoryFileError as InventoryFileError
from roles.declaration.files import file_problem as file_problem
from roles.declaration.files import inventory_file as inventory_file
from roles.declaration.problems import DeclarationError as DeclarationError
from roles.declaration.problems import merged as merged
from roles.declaration.problems import problems_of as problems_of
from roles.declaration.recordings import check_entry as check_entry
from roles.declaration.recordings import record as record
from roles.declaration.recordings import recorded as recorded
from roles.declaration.recordings import recording_of as recording_of
from roles.declaration.recordings import saved_plan as saved_plan
from roles.declaration.recordings import saved_plan_of as saved_plan_of
from roles.declaration.recordings import write_whole as write_whole
from roles.declaration.settings import FleetSettings as FleetSettings
from roles.declaration.settings import HostSettings as HostSettings
from roles.declaration.settings import Service as Service
from roles.declaration.ssh import SSH as SSH
from roles.declaration.ssh import name_problem as name_problem
from roles.declaration.ssh import value_problems as value_problems
