"""pyinfra's program comes first, as in a run: it replaces sockets and TLS by its own, which fails
for what was imported before."""

import pyinfra_cli  # noqa: F401
