"""Launch units that run replicas: their files, and how a host moves from the old to the new."""

from roles.launch.probing import SecretInput as SecretInput
from roles.launch.probing import script as script
from roles.launch.render import unit_name as unit_name
from roles.launch.settings import LaunchSettings as LaunchSettings
