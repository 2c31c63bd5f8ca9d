"""Which faults of a host's report the driver stage mends, by their kind."""

# Packages, modules and daemons, each of which its operations see to.
REMEDIATED = frozenset(
    (
        *("driver-missing", "driver-not-loaded", "nouveau-loaded", "driver-library-mismatch"),
        *("library-missing", "fabric-manager-down", "fabric-manager-version", "persistence-off"),
        *("driver-not-reloaded", "driver-kind"),
    )
)
# Those of them that take a reboot.
REMEDIATED_BY_REBOOT = frozenset(
    ("nouveau-loaded", "driver-not-reloaded", "driver-library-mismatch", "driver-kind")
)
# Those that are gone where another driver is installed, and else are not the driver stage's.
REMEDIATED_BY_ANOTHER_DRIVER = frozenset(("driver-fails", "nvml-init-failed"))
