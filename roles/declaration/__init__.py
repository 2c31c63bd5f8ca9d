"""What was written: an inventory with its settings and recordings, and what is wrong with it."""

from roles.declaration.problems import DeclarationError as DeclarationError
from roles.declaration.problems import merged as merged
from roles.declaration.problems import problems_of as problems_of
from roles.declaration.settings import FleetSettings as FleetSettings
from roles.declaration.settings import HostSettings as HostSettings
