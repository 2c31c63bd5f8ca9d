"""Reboots of hosts, a few at a time. Pure code only."""

from roles.reboot.waiting import Boot as Boot
