"""The kinds of faults that the driver stage remedies."""

# Its operations install packages, load modules and start daemons.
REMEDIATED = frozenset(
    (
        *("driver-missing", "driver-not-loaded", "nouveau-loaded", "driver-library-mismatch"),
        *("library-missing", "fabric-manager-down", "fabric-manager-version", "persistence-off"),
        *("driver-not-reloaded", "driver-kind"),
    )
)
# Those that need a reboot.
REMEDIATED_BY_REBOOT = frozenset(
    ("nouveau-loaded", "driver-not-reloaded", "driver-library-mismatch", "driver-kind")
)
# Those that another driver remedies; otherwise they are not the driver stage's task.
REMEDIATED_BY_ANOTHER_DRIVER = frozenset(("driver-fails", "nvml-init-failed"))
