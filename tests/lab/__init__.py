"""A fleet of real hosts on this machine: one balancer and three GPU hosts.

Each host is a Debian with systemd as PID 1, sshd and an address of its own. Only two things are
simulated: the GPU hardware (nvidia-smi and lspci answer from a recorded profile) and the size of
the weights. Use it by `python -m tests.lab` or, from pytest, by `tests.lab.hosts` and
`tests.lab.faults`.

Two more hosts are booted only by name: `bare1` and `bare2`, as a provider hands them over, with
GPUs and without a driver. There the kernel's modules and the PCI bus are simulated as well
(gpu/kernel.py), and stand-ins for the vendor's packages come from a signed repository (drivers.py).
What can go wrong while a driver is installed is in `tests.lab.driver_faults`.

`lb2`, `gpu5` and `gpu6` are spare: tests of services boot them beside the others, fresh, and
neither find nor leave anything on the hosts that others share (services.py). `lb3` is the balancer
of bare hosts; `gpu7`, `gpu8`, `lb4` and `lb5` are of the pages on day two. Tests of both run beside
the others, in a process of their own (`make lab`).
"""
