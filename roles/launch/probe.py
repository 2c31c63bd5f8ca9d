"""Runs on a host, fed to `python3 -` on its standard input: real completions against engines.

Standard library only. `TASK` (a dict) is put in front of this text by `roles.launch.probing`.
"""
