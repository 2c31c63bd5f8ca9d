"""Whether the GPUs of a replica can work together, measured before engines start. Pure only."""

from roles.interconnect.settings import InterconnectSettings as InterconnectSettings
