"""Gives a balancer its part in a virtual address, or takes it away."""

import shlex

from pyinfra import host
from pyinfra.api import StringCommand, operation
from pyinfra.operations import apt

from roles.balancer.deployment import BalancerDeployment
from roles.balancer.virtual_address.render import (
    PACKAGES,
    VirtualAddress,
    files,
    install,
    removal,
    start,
)
from roles.host import archive, changed_files


@operation()
def virtual_address(deployment: BalancerDeployment, wanted: VirtualAddress | None):
    """
    Share an address with the other balancers, by keepalived; give it up where none is wanted.

    + deployment: what was found on the balancer
    + wanted: the address
    """
    found, new = deployment.found, files(wanted)
    if not new:
        if found.virtual_address:
            yield StringCommand("sh", "-c", shlex.quote(removal()))
        else:
            host.noop("there is no virtual address")
        return
    missing = [one for one in PACKAGES if one not in found.packages]
    changed = changed_files(new, found.virtual_address)
    if not missing and not changed and found.shares:
        host.noop("the virtual address is as planned")
        return
    if missing:
        yield from apt.packages._inner(packages=missing, update=True, no_recommends=True)
    if changed:
        script = install(new, changed)
        yield StringCommand("sh", "-c", shlex.quote(script), _stdin=archive(new))
    else:
        yield StringCommand("sh", "-c", shlex.quote(start()))
