"""Measures whether the GPUs of each replica can work together, before engines start. Pure code
only."""

from roles.interconnect.settings import InterconnectSettings as InterconnectSettings
