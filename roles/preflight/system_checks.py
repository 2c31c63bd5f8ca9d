"""Is the system one that can be set up: distribution, libraries, sudo, clock. Pure."""

from collections.abc import Iterator

from roles.checks import Check
from roles.driver import OperatingSystem
from roles.preflight.case import CheckContext, format_version, ok, skipped, stop, warning

# systemd 247 brought LoadCredential= and what later units rely on.
LEAST_SYSTEMD = 247
# The Python that `python3` is there, where it is not installed yet.
_PYTHONS = {
    "debian 12": (3, 11),
    "debian 13": (3, 13),
    "ubuntu 22.04": (3, 10),
    "ubuntu 24.04": (3, 12),
}
# What systemd-detect-virt calls systems that run on another's kernel.
CONTAINERS = frozenset(
    (
        *("systemd-nspawn", "lxc", "lxc-libvirt", "docker", "podman", "openvz", "wsl"),
        *("proot", "pouch", "container-other"),
    )
)
CLOCK_WARNING_S, CLOCK_STOP_S = 60, 300


def system_checks(case: CheckContext) -> Iterator[Check]:
    """Every check of the system itself."""
    yield operating_system(case)
    yield sudo(case)
    yield from host_name(case)
    yield umask(case)
    yield systemd(case)
    yield clock_difference(case)
    yield clock_synchronised(case)
    yield package_manager(case)
    yield reboot_pending(case)
    if case.engine:
        yield architecture(case)
        yield glibc(case)
        yield from pythons(case)


def operating_system(case: CheckContext) -> Check:
    """Engines and nginx are installed with apt; drivers also with dnf."""
    system = OperatingSystem(case.os_name, case.os_version, case.report.system.machine)
    seen = case.report.system.os or "no /etc/os-release"
    installs = case.engine or case.needs.balancer
    if system.uses_apt or (system.family and not installs):
        return ok("os", seen)
    supported = "Debian 12 and 13, Ubuntu 22.04 and 24.04"
    if system.family:
        return stop(
            "os",
            f"{seen}: drivers are installed there, engines and nginx are installed with apt alone",
            f"use {supported} on this host; RHEL, Rocky and Alma 9 go as far as deploys/drivers.py",
        )
    if case.os_name in ("debian", "ubuntu"):
        return warning("os", f"{seen} is not tested", f"use {supported}")
    return stop("os", f"{seen} is not supported", f"use {supported}")


def architecture(case: CheckContext) -> Check:
    """Engines' wheels are tested on x86_64."""
    machine = case.report.system.machine
    if machine == "x86_64":
        return ok("architecture", machine)
    if machine == "aarch64":
        return warning(
            "architecture",
            "aarch64 is not tested",
            "see that the package index has wheels of the engine for it",
        )
    return stop("architecture", f"{machine}: engines have no wheels for it", "use x86_64")


def glibc(case: CheckContext) -> Check:
    """Wheels say which C library they need at least (manylinux)."""
    assert case.engine
    found, least = case.answers.glibc, case.engine.needs.glibc
    if found is None:
        return warning(
            "glibc", "the C library does not say its version", "use a distribution with glibc"
        )
    if found < least:
        return stop(
            "glibc",
            f"{format_version(found)}, {case.engine.needs.name} needs {format_version(least)}",
            "upgrade the distribution",
        )
    return ok("glibc", format_version(found))


def pythons(case: CheckContext) -> Iterator[Check]:
    """The Pythons that engines are installed with; all but the first have a check of their name."""
    assert case.engine
    for number, python in enumerate(case.engine.pythons):
        name = f"python:{python}" if number else "python"
        if not case.must_install_engine:
            yield skipped(name, "the engine is installed")
        elif python in case.answers.pythons:
            yield _present_python(case, name, python)
        else:
            yield _missing_python(case, name, python)


def _missing_python(case: CheckContext, name: str, python: str) -> Check:
    """A Python that is not there: the distribution's own is installed."""
    expected, least = _PYTHONS.get(case.report.system.os), _least_python(case, python)
    if python != "python3" or expected is None:
        return stop(name, f"no {python}", _install_python(python))
    if expected < least:
        seen = f"{python} will be {format_version(expected)}, {_python_requirement(case, python)}"
        return stop(name, seen, _newer_python_remedy(least))
    return ok(name, f"{python} {format_version(expected)} comes with python3-venv")


def _present_python(case: CheckContext, name: str, python: str) -> Check:
    """A Python's version, and its venv module."""
    found, least = case.answers.pythons[python], _least_python(case, python)
    if found.version is None:
        return stop(name, f"{python} does not run", f"try it on the host: {python} --version")
    if found.version[:2] < least:
        seen = f"{python} is {format_version(found.version)}, {_python_requirement(case, python)}"
        return stop(name, seen, _newer_python_remedy(least))
    if not found.venv and python != "python3":
        return stop(name, f"{python} has no module venv or ensurepip", _install_python(python))
    if not found.venv:
        return ok(name, f"{python} {format_version(found.version)}; python3-venv will be installed")
    return ok(name, f"{python} {format_version(found.version)} with venv")


def _least_python(case: CheckContext, python: str) -> tuple[int, ...]:
    assert case.engine
    return case.engine.most_demanding(python).python or ()


def _python_requirement(case: CheckContext, python: str) -> str:
    assert case.engine
    return f"{case.engine.most_demanding(python).name} needs {format_version(_least_python(case, python))}"


def _newer_python_remedy(version: tuple[int, ...]) -> str:
    least = format_version(version)
    return (
        f"install a newer one (sudo apt-get install python{least}-venv python{least}-dev) and set "
        f"engine.python to python{least}; or use a newer distribution"
    )


def _install_python(name: str) -> str:
    return f"sudo apt-get install {name}-venv {'python3' if name == 'python3' else name}-dev"


def systemd(case: CheckContext) -> Check:
    """Replicas are units."""
    version, init = case.answers.systemd, case.answers.init
    if init != "systemd":
        return stop(
            "systemd",
            f"process 1 is {init or 'unknown'}, not systemd",
            "boot the host with systemd; a plain container is no host",
        )
    if version is None or version < LEAST_SYSTEMD:
        return stop(
            "systemd", f"version {version}, {LEAST_SYSTEMD} is needed", "upgrade the distribution"
        )
    return ok("systemd", str(version))


def sudo(case: CheckContext) -> Check:
    """Everything that needs root is done with passwordless sudo."""
    if not case.report.passwordless_sudo:
        if case.report.root:
            return stop("sudo", "sudo is not installed", "as root: apt-get install sudo")
        if "tty" in case.answers.sudo_message:
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
    if case.answers.temporary_full:
        return ok("sudo", "passwordless")
    if not case.answers.root:
        hung = case.answers.sudo_hung
        said = "no answer in time" if hung else case.answers.sudo_message or "no answer"
        return stop(
            "sudo",
            f"sudo runs not every command: {said}",
            "allow every command: USER ALL=(ALL) NOPASSWD: ALL",
        )
    return ok("sudo", "passwordless")


def host_name(case: CheckContext) -> Iterator[Check]:
    """sudo looks its host up each time; where that fails each command may wait for DNS."""
    if "unable to resolve host" in case.answers.sudo_message:
        yield warning(
            "host-name",
            "sudo cannot resolve the host's own name, and may wait for it at each command",
            'echo "127.0.1.1 $(hostname)" | sudo tee -a /etc/hosts',
        )


def umask(case: CheckContext) -> Check:
    """What root makes in /opt/llm must be readable to the user that runs engines."""
    found = case.answers.umask
    if found is None:
        return skipped("umask", "was not seen, it needs sudo")
    if found & 0o005:
        return stop(
            "umask",
            f"sudo makes files with umask {found:04o}: engines could not read what is installed",
            "add to /etc/sudoers.d: Defaults umask=0022, umask_override",
        )
    return ok("umask", f"{found:04o}")


def clock_difference(case: CheckContext) -> Check:
    """With a clock that is wrong certificates are not valid."""
    difference = case.clock_difference_s
    if difference is None:
        return skipped("clock-difference", "was not measured")
    how = "ahead of" if difference > 0 else "behind"
    seen = f"{abs(difference):.0f} s {how} this machine's clock"
    remedy = "sudo timedatectl set-ntp true; then see timedatectl (and this machine's clock)"
    if abs(difference) > CLOCK_STOP_S:
        return stop("clock-difference", f"{seen}: TLS would fail", remedy)
    if abs(difference) > CLOCK_WARNING_S:
        return warning("clock-difference", seen, remedy)
    return ok("clock-difference", "as this machine's" if abs(difference) < 1 else seen)


def clock_synchronised(case: CheckContext) -> Check:
    """Whether something keeps the clock right."""
    found = case.answers.synchronised
    if case.report.system.virtualization in CONTAINERS:
        return skipped(
            "clock-synchronised", "a container has the clock of the machine that it is on"
        )
    if found is None:
        return skipped("clock-synchronised", "timedatectl does not say")
    if not found:
        return warning(
            "clock-synchronised",
            "nothing keeps the clock right",
            "sudo apt-get install systemd-timesyncd (or chrony); sudo timedatectl set-ntp true",
        )
    return ok("clock-synchronised", "by NTP")


def package_manager(case: CheckContext) -> Check:
    """Whether apt can work now."""
    if audit := case.report.system.dpkg_audit:
        return warning(
            "package-manager",
            f"packages are half installed: {audit[:200]}",
            "sudo dpkg --configure -a; sudo apt-get -f install",
        )
    if case.answers.packaging_busy:
        return warning(
            "package-manager",
            "something installs packages now (unattended-upgrades?)",
            "wait until it is done: sudo fuser -v /var/lib/dpkg/lock-frontend",
        )
    return ok("package-manager", "idle")


def reboot_pending(case: CheckContext) -> Check:
    """The distribution's own wish for a reboot."""
    if case.report.system.reboot_required:
        names = " ".join(case.report.system.reboot_for[:5])
        what = f" for {names}" if names else ""
        return warning(
            "reboot-pending",
            f"the distribution wants a reboot{what}",
            "reboot the host before it serves: sudo systemctl reboot",
        )
    return ok("reboot-pending", "no")
