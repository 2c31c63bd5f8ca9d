"""Faults of hosts and of their (simulated) GPUs, made on purpose."""
