"""A fleet of real hosts on this machine: one balancer and three GPU hosts.

Each host is a Debian with systemd as PID 1, sshd and an address of its own. Only two things are
simulated: the GPU hardware (nvidia-smi and lspci answer from a recorded profile) and the size of
the weights. Use it by `python -m tests.lab` or, from pytest, by `tests.lab.hosts` and
`tests.lab.faults`.
"""
