"""Checks of the system: distribution, libraries, sudo, clock. Pure."""

from collections.abc import Iterator

from roles.checks import Check
from roles.driver import OperatingSystem
from roles.preflight.context import (
    OTHER_DEPLOY,
    CheckContext,
    format_version,
    ok,
    skipped,
    stop,
    warning,
)

# systemd 247 introduced LoadCredential=, which our units use.
MIN_SYSTEMD = 247
# The version that the package python3 has on each system, for hosts where it is not installed yet.
_PYTHONS = {
    "debian 12": (3, 11),
    "debian 13": (3, 13),
    "ubuntu 22.04": (3, 10),
    "ubuntu 24.04": (3, 12),
}
# What systemd-detect-virt prints on systems that share the kernel of another one.
CONTAINERS = frozenset(
    (
        *("systemd-nspawn", "lxc", "lxc-libvirt", "docker", "podman", "openvz", "wsl"),
        *("proot", "pouch", "container-other"),
    )
)
CLOCK_WARNING_S, CLOCK_STOP_S = 60, 300


def system_checks(context: CheckContext) -> Iterator[Check]:
    """Every check of the system itself."""
    yield operating_system(context)
    yield sudo(context)
    yield from host_name(context)
    yield umask(context)
    yield systemd(context)
    yield clock_difference(context)
    yield clock_synchronised(context)
    yield package_manager(context)
    yield other_deploy(context)
    yield reboot_pending(context)
    if context.engine:
        yield architecture(context)
        yield glibc(context)
        yield from pythons(context)


def operating_system(context: CheckContext) -> Check:
    """Whether the distribution is supported: engines and balancers need apt, drivers apt or dnf."""
    system = OperatingSystem(context.os_name, context.os_version, context.report.system.machine)
    evidence = context.report.system.os or "no /etc/os-release"
    installs = context.engine or context.needs.balancer
    if system.uses_apt or (system.family and not installs):
        return ok("os", evidence)
    supported = "Debian 12 and 13, Ubuntu 22.04 and 24.04"
    if system.family:
        return stop(
            "os",
            f"{evidence}: drivers are installed there, engines and balancers are installed with "
            "apt alone",
            f"use {supported} on this host; RHEL, Rocky and Alma 9 go as far as deploys/drivers.py",
        )
    if context.os_name in ("debian", "ubuntu"):
        return warning("os", f"{evidence} is not tested", f"use {supported}")
    return stop("os", f"{evidence} is not supported", f"use {supported}")


def architecture(context: CheckContext) -> Check:
    """Whether engines have wheels for the processor's architecture."""
    machine = context.report.system.machine
    if machine == "x86_64":
        return ok("architecture", machine)
    if machine == "aarch64":
        return warning(
            "architecture",
            "aarch64 is not tested",
            "make sure that the package index has wheels of the engine for it",
        )
    return stop("architecture", f"{machine}: engines have no wheels for it", "use x86_64")


def glibc(context: CheckContext) -> Check:
    """Whether the C library is as new as the engines' wheels need (manylinux)."""
    assert context.engine
    found, least = context.answers.glibc, context.engine.needs.glibc
    if found is None:
        return warning("glibc", "the C library reports no version", "use a distribution with glibc")
    if found < least:
        return stop(
            "glibc",
            f"{format_version(found)}, {context.engine.needs.name} needs {format_version(least)}",
            "upgrade the distribution",
        )
    notes = [
        f"{one.name} is built from its source, as its archive needs {format_version(least)}"
        for one in dict.fromkeys(context.engine.engines)
        if (least := one.built_below) and found < least
    ]
    return ok("glibc", "; ".join([format_version(found), *notes]))


def pythons(context: CheckContext) -> Iterator[Check]:
    """Whether each Python that engines use suits them.

    The first one's check is called "python", those of others also have their name.
    """
    assert context.engine
    for number, python in enumerate(context.engine.pythons):
        name = f"python:{python}" if number else "python"
        if not context.must_install_engine:
            yield skipped(name, "the engine is installed")
        elif python in context.answers.pythons:
            yield _present_python(context, name, python)
        else:
            yield _missing_python(context, name, python)


def _missing_python(context: CheckContext, name: str, python: str) -> Check:
    """Whether the distribution's Python, which will be installed, suits the engines."""
    expected, least = _PYTHONS.get(context.report.system.os), _least_python(context, python)
    if python != "python3" or expected is None:
        return stop(name, f"no {python}", _install_python(python))
    if expected < least:
        evidence = (
            f"{python} will be {format_version(expected)}, {_python_requirement(context, python)}"
        )
        return stop(name, evidence, _newer_python_remedy(least))
    return ok(name, f"{python} {format_version(expected)} comes with python3-venv")


def _present_python(context: CheckContext, name: str, python: str) -> Check:
    """Whether an installed Python is new enough and has the module venv."""
    found, least = context.answers.pythons[python], _least_python(context, python)
    if found.version is None:
        return stop(name, f"{python} does not run", f"try it on the host: {python} --version")
    if found.version[:2] < least:
        evidence = (
            f"{python} is {format_version(found.version)}, {_python_requirement(context, python)}"
        )
        return stop(name, evidence, _newer_python_remedy(least))
    if not found.venv and python != "python3":
        return stop(name, f"{python} has no module venv or ensurepip", _install_python(python))
    if not found.venv:
        return ok(name, f"{python} {format_version(found.version)}; python3-venv will be installed")
    return ok(name, f"{python} {format_version(found.version)} with venv")


def _least_python(context: CheckContext, python: str) -> tuple[int, ...]:
    assert context.engine
    return context.engine.most_demanding(python).python or ()


def _python_requirement(context: CheckContext, python: str) -> str:
    assert context.engine
    least = format_version(_least_python(context, python))
    return f"{context.engine.most_demanding(python).name} needs {least}"


def _newer_python_remedy(version: tuple[int, ...]) -> str:
    least = format_version(version)
    return (
        f"install a newer one (sudo apt-get install python{least}-venv python{least}-dev) and set "
        f"engine.python to python{least}; or use a newer distribution"
    )


def _install_python(name: str) -> str:
    return f"sudo apt-get install {name}-venv {'python3' if name == 'python3' else name}-dev"


def systemd(context: CheckContext) -> Check:
    """Whether the host runs a systemd that is new enough: replicas are units of it."""
    version, init = context.answers.systemd, context.answers.init
    if init != "systemd":
        return stop(
            "systemd",
            f"process 1 is {init or 'unknown'}, not systemd",
            "boot the host with systemd; a plain container is no host",
        )
    if version is None or version < MIN_SYSTEMD:
        return stop(
            "systemd", f"version {version}, {MIN_SYSTEMD} is needed", "upgrade the distribution"
        )
    return ok("systemd", str(version))


def sudo(context: CheckContext) -> Check:
    """Whether sudo runs every command without a password."""
    if not context.report.passwordless_sudo:
        if context.report.root:
            return stop("sudo", "sudo is not installed", "as root: apt-get install sudo")
        if "tty" in context.answers.sudo_message:
            return stop(
                "sudo",
                "sudo wants a terminal (requiretty)",
                "add to /etc/sudoers.d: Defaults:USER !requiretty",
            )
        return stop(
            "sudo",
            "no passwordless sudo for this user",
            "add to /etc/sudoers.d: USER ALL=(ALL) NOPASSWD: ALL",
        )
    if context.answers.temporary_full:
        return ok("sudo", "passwordless")
    if not context.answers.root:
        hung = context.answers.sudo_hung
        message = "no answer in time" if hung else context.answers.sudo_message or "no answer"
        return stop(
            "sudo",
            f"sudo does not run every command: {message}",
            "allow every command: USER ALL=(ALL) NOPASSWD: ALL",
        )
    return ok("sudo", "passwordless")


def host_name(context: CheckContext) -> Iterator[Check]:
    """Whether sudo can resolve the host's own name: else each command may wait for DNS."""
    if "unable to resolve host" in context.answers.sudo_message:
        yield warning(
            "host-name",
            "sudo cannot resolve the host's own name, which may delay each command",
            'echo "127.0.1.1 $(hostname)" | sudo tee -a /etc/hosts',
        )


def umask(context: CheckContext) -> Check:
    """Whether files that root makes in /opt/llm can be read by the user that runs engines."""
    found = context.answers.umask
    if found is None:
        return skipped("umask", "not checked: it needs sudo")
    if found & 0o005:
        return stop(
            "umask",
            f"sudo creates files with umask {found:04o}: engines could not read what is installed",
            "add to /etc/sudoers.d: Defaults umask=0022, umask_override",
        )
    return ok("umask", f"{found:04o}")


def clock_difference(context: CheckContext) -> Check:
    """Whether the host's clock agrees with this machine's: TLS fails where it does not."""
    difference = context.clock_difference_s
    if difference is None:
        return skipped("clock-difference", "was not measured")
    how = "ahead of" if difference > 0 else "behind"
    evidence = f"{abs(difference):.0f} s {how} this machine's clock"
    remedy = "sudo timedatectl set-ntp true; then see timedatectl (and this machine's clock)"
    if abs(difference) > CLOCK_STOP_S:
        return stop("clock-difference", f"{evidence}: TLS would fail", remedy)
    if abs(difference) > CLOCK_WARNING_S:
        return warning("clock-difference", evidence, remedy)
    return ok("clock-difference", "as this machine's" if abs(difference) < 1 else evidence)


def clock_synchronised(context: CheckContext) -> Check:
    """Whether the clock is synchronised."""
    found = context.answers.synchronised
    if context.report.system.virtualization in CONTAINERS:
        return skipped(
            "clock-synchronised", "a container uses the clock of the machine that it runs on"
        )
    if found is None:
        return skipped("clock-synchronised", "timedatectl does not say")
    if not found:
        return warning(
            "clock-synchronised",
            "nothing synchronises the clock",
            "sudo apt-get install systemd-timesyncd (or chrony); sudo timedatectl set-ntp true",
        )
    return ok("clock-synchronised", "by NTP")


def package_manager(context: CheckContext) -> Check:
    """Whether apt can install packages now."""
    if audit := context.report.system.dpkg_audit:
        return warning(
            "package-manager",
            f"packages are half installed: {audit[:200]}",
            "sudo dpkg --configure -a; sudo apt-get -f install",
        )
    if context.answers.packaging_busy:
        return warning(
            "package-manager",
            "another program installs packages now (unattended-upgrades?)",
            "wait until it has finished: sudo fuser -v /var/lib/dpkg/lock-frontend",
        )
    return ok("package-manager", "idle")


def other_deploy(context: CheckContext) -> Check:
    """Whether no other deploy is at work on the host, as one whose connection broke may be."""
    if not context.answers.root:
        return skipped(OTHER_DEPLOY, "not checked: it needs sudo")
    found = context.answers.other_deploy
    if found is None:
        return ok(OTHER_DEPLOY, "none is at work")
    since = "" if found.seconds is None else f", for {found.seconds} s"
    run = f", run {found.run}" if found.run else ""
    return stop(
        OTHER_DEPLOY,
        f"another deploy is still at work on this host (pid {found.pid}{since}{run})",
        "wait for it, then run again",
    )


def reboot_pending(context: CheckContext) -> Check:
    """Whether the distribution asks for a reboot."""
    if context.report.system.reboot_required:
        names = " ".join(context.report.system.reboot_for[:5])
        what = f" for {names}" if names else ""
        return warning(
            "reboot-pending",
            f"the distribution asks for a reboot{what}",
            "reboot the host before it serves: sudo systemctl reboot",
        )
    return ok("reboot-pending", "no")
