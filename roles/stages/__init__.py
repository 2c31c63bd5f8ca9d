"""The stages of a run: one file each, and the state of the run, the only one."""
