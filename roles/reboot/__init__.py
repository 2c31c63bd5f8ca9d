"""Reboots of hosts, a few at a time: waiting until one is back, and saying what was seen of one
that is not. Pure code only."""

from roles.reboot.waiting import Boot as Boot
