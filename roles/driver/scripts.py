"""The shell scripts that change a host's packages. Pure.

POSIX sh. A package manager's output is printed only if it fails: first its errors, then their
meaning and the remedy.
"""

import shlex
from collections.abc import Iterable, Sequence

from roles.driver.errors import explaining_script
from roles.driver.installation import DriverInstallation
from roles.driver.packages import PackagePlan, Repository
from roles.driver.system import OperatingSystem

APT = (
    "apt-get -q -y -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "
    "-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold"
)
DNF = "dnf -y --setopt=retries=2 --setopt=timeout=30"

EPEL_KEY = "FF8AD1344597106ECE813B918A3872BF3228467C"
"""Fingerprint of the key that signs EPEL 9 (fedoraproject.org/security)."""
_OPTIONS = "--no-install-recommends --allow-downgrades"


def finish_script(system: OperatingSystem, release: Sequence[str]) -> str:
    """Complete an interrupted installation; `release` are held packages that it may change.

    If apt would have to remove packages, the following installation does it.
    """
    if not system.uses_apt:
        return explaining_script(["run rpm --verifydb"])
    configure = "dpkg --force-confdef --force-confold --configure -a"
    repair = f"{APT} -f install --no-remove {_OPTIONS}"
    return explaining_script(
        [
            # An interrupted package may need one that is not unpacked yet; apt then repairs this.
            f'{configure} >"$log" 2>&1 </dev/null || :',
            *([f"run apt-mark unhold {_quoted_names(release)}"] if release else []),
            f'{repair} >"$log" 2>&1 </dev/null || :',
            f"run {configure}",
        ]
    )


def repository_script(plan: PackagePlan, system: OperatingSystem) -> str:
    """Write a repository's key and file, which come as a tar on the standard input.

    First the index is read and its signature checked with the staged files alone: if that fails,
    nothing has changed on the host. apt's preferences are written before the repository's file.
    """
    repository = plan.repository
    assert repository is not None
    stage = [
        "STAGE=$(mktemp -d) || exit 1",
        'trap \'rm -rf "$STAGE" "$log"\' EXIT',
        'base64 -d | tar -xf - -C "$STAGE" || exit 1',
        # apt reads files as its own user.
        'chmod -R a+rX "$STAGE"',
    ]
    preferences = [write_command(*plan.preferences)] if plan.preferences else []
    paths = (shlex.quote(repository.key_path), shlex.quote(repository.path))
    put = [
        f'install -D -m 644 "$STAGE"{path} {path}.new && mv -f {path}.new {path} || exit 1'
        for path in paths
    ]
    if system.uses_apt:
        # Another repository of the host may be broken; that is no reason to stop.
        update = f'{APT} update >"$log" 2>&1 </dev/null || :'
        return explaining_script([*stage, *_apt_reads(repository), *preferences, *put, update])
    return explaining_script(
        [*stage, *_dnf_reads(repository), *put, f"run rpm --import {paths[0]}"]
    )


def _apt_reads(repository: Repository) -> list[str]:
    """Check that apt can read a staged repository's index."""
    attempt = shlex.quote(f"driver: {repository.check_url} was requested")
    return [
        'mkdir -p "$STAGE/lists/partial"; chmod 755 "$STAGE/lists"',
        f'sed "s|signed-by={repository.key_path}|signed-by=$STAGE{repository.key_path}|" '
        f'"$STAGE"{shlex.quote(repository.path)} >"$STAGE/check.list"; '
        'chmod 644 "$STAGE/check.list"',
        f'{APT} update -o Dir::Etc::SourceList="$STAGE/check.list" '
        '-o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$STAGE/lists" '
        '-o Dir::Cache::pkgcache="" -o Dir::Cache::srcpkgcache="" '
        '-o APT::Update::Error-Mode=any >"$log" 2>&1 </dev/null && '
        "! grep -qE '^(E|Err|W: (Failed|GPG))' \"$log\" || "
        f"{{ echo {attempt} >&2; tell; }}",
    ]


def _dnf_reads(repository: Repository) -> list[str]:
    """Check that dnf can read a staged repository's index."""
    attempt = shlex.quote(f"driver: {repository.check_url} was requested")
    return [
        # On some systems dnf skips a repository that does not answer.
        f'sed "s|file://{repository.key_path}|file://$STAGE{repository.key_path}|; '
        f's|^enabled=1|&\\nskip_if_unavailable=0|" "$STAGE"{shlex.quote(repository.path)} '
        '>"$STAGE/check.repo"',
        f'{DNF} --setopt=reposdir="$STAGE" --setopt=cachedir="$STAGE/cache" makecache '
        f'>"$log" 2>&1 </dev/null || {{ echo {attempt} >&2; tell; }}',
    ]


def install_script(todo: DriverInstallation) -> str:
    """Install all packages of a driver together, then check that its module exists."""
    commands = _apt_commands(todo) if todo.system.uses_apt else _dnf_commands(todo)
    if todo.restarted:
        commands.append(f"run systemctl try-restart {todo.restarted}")
    marks = [_amdgpu_mark(todo.amdgpu)] if todo.amdgpu else []
    return explaining_script([*marks, *commands, *_module_check(todo)])


def _apt_commands(todo: DriverInstallation) -> list[str]:
    commands = []
    if todo.plan.preferences:
        path, content = todo.plan.preferences
        # Without the preferences dependencies would come from the newest branch.
        commands.append(write_command(path, content))
    if todo.release:
        commands.append(f"run apt-mark unhold {_quoted_names(todo.release)}")
    if todo.headers:
        commands.append(f"run {APT} install {_OPTIONS} {_quoted_names(todo.headers)}")
    commands.append(f"run {APT} install {_OPTIONS} {_quoted_names(apt_names(todo))}")
    if todo.upgraded:
        commands.append(_KERNEL_MARK)
    return commands


def apt_names(todo: DriverInstallation) -> list[str]:
    """The packages that must be installed together: signed modules fit one kernel and one driver
    version."""
    names = [f"{name}={version}" for name, version in todo.whole]
    return [*names, *todo.extra, *todo.upgraded]


def refusal_command(packages: Iterable[str]) -> str:
    """Ask apt whether packages can be installed together: it prints "fits", or why not."""
    simulated = f"apt-get -q -s -o Debug::NoLocking=1 install {_OPTIONS}"
    simulated += f" --allow-change-held-packages {_quoted_names(packages)}"
    return (
        f"export LC_ALL=C; said=$({simulated} 2>&1 </dev/null) && echo fits || "
        'printf "%s\\n" "$said" | grep -vE "^(Reading|Building) " | tail -n 8'
    )


def _dnf_commands(todo: DriverInstallation) -> list[str]:
    commands = []
    if todo.plan.epel:
        commands += _epel(todo.system)
    if todo.plan.stream:
        module, stream = todo.plan.stream.split(":")
        enabled = (
            f"dnf -q module list --enabled {module} 2>/dev/null | grep -qE ' {stream} .*\\[e\\]'"
        )
        switch = f"run {DNF} module reset {module}; run {DNF} module enable {todo.plan.stream}"
        commands.append(f"{enabled} || {{ {switch}; }}")
    if todo.release:
        commands.append(f"run {DNF} versionlock delete {_quoted_names(todo.release)}")
    if todo.headers:
        commands.append(f"run {DNF} install {_quoted_names(todo.headers)}")
    if todo.upgraded:
        commands.append(f"run {DNF} upgrade --allowerasing {_quoted_names(todo.upgraded)}")
        commands.append(_KERNEL_MARK)
    names = [f"{name}-{version}" for name, version in todo.whole]
    weak = "--setopt=install_weak_deps=False --allowerasing"
    commands.append(f"run {DNF} install {weak} {_quoted_names((*names, *todo.extra))}")
    return commands


def _epel(system: OperatingSystem) -> list[str]:
    """Enable EPEL, which has DKMS, and CodeReady Builder, which has its build tools (NVIDIA's
    guide)."""
    release = system.release
    arch = system.arch
    install = f"run {DNF} install epel-release"
    if system.id == "rhel":
        crb = f"codeready-builder-for-rhel-{release}-{arch}-rpms"
        enable = (
            f"{{ subscription-manager repos --enable {crb} || dnf config-manager --set-enabled "
        )
        enable += "codeready-builder-for-rhel-9-rhui-rpms; }"
        install = _epel_of_fedora()
    else:
        # The distribution's own repository has the package, signed with the distribution's key.
        enable = "dnf config-manager --set-enabled crb"
    available = "dnf -q repoquery --available dkms 2>/dev/null | grep -q ."
    return [
        # A mirror of EPEL that the host already uses is enough.
        f"rpm -q dkms >/dev/null 2>&1 || {available} || {{ run {DNF} install dnf-plugins-core; "
        f'{enable} >"$log" 2>&1 </dev/null; {install}; }}'
    ]


def _epel_of_fedora() -> str:
    """Import EPEL's key if its fingerprint is the known one, then install the package that it
    signs."""
    url = "https://dl.fedoraproject.org/pub/epel"
    shown = 'gpg --batch --with-colons --show-keys "$epel" 2>/dev/null'
    only = f"[ \"$({shown} | awk -F: '/^pub/ {{own = 1}} own && /^fpr/ {{print $10; own = 0}}')\""
    other = (
        f"driver: {url}/RPM-GPG-KEY-EPEL-9 is not EPEL's key ({EPEL_KEY}); nothing is installed "
        "from there. Install dkms from a mirror of EPEL that you trust"
    )
    return (
        'epel=$(mktemp) || exit 1; trap \'rm -f "$log" "$epel"\' EXIT; '
        f'run curl -fsSL --proto =https --max-time 60 -o "$epel" {url}/RPM-GPG-KEY-EPEL-9; '
        f"{only} = {EPEL_KEY} ] || {{ echo {shlex.quote(other)} >&2; exit 1; }}; "
        'run rpm --import "$epel"; '
        f"run {DNF} install --setopt=localpkg_gpgcheck=1 {url}/epel-release-latest-9.noarch.rpm"
    )


def _module_check(todo: DriverInstallation) -> list[str]:
    """Check that a kernel of the host has the module, in the version of its libraries."""
    if todo.version is None:
        return []
    return [
        *(_build_commands(todo.version) if todo.plan.dkms else []),
        *_module_check_commands(
            todo.version, f"driver: there is no module of driver {todo.version}"
        ),
        *([_next_kernel_check(todo.version)] if todo.upgraded else []),
    ]


def rebuild_script(version: str) -> str:
    """Rebuild the modules of a driver that no kernel of the host has any more."""
    words = (
        f"driver: {version} serves, but its module is lost on the disk and could not be built: a "
        "reboot would leave this host without it. Install the package of its modules again"
    )
    return explaining_script([*_build_commands(version), *_module_check_commands(version, words)])


_MODULE_OF_K = 'modinfo -k "$k" -F version nvidia 2>/dev/null'


def _build_commands(version: str) -> list[str]:
    """Make DKMS build the module for every kernel with headers, if needed from /usr/src.

    After an interrupted upgrade DKMS has forgotten the module that it removed.
    """
    quiet = '>"$log" 2>&1 </dev/null'
    lacks = f'[ "$({_MODULE_OF_K})" != {version} ]'
    return [
        'for d in /lib/modules/*; do k=${d##*/}; [ -e "$d/build" ] || continue',
        f'{lacks} && dkms autoinstall -k "$k" {quiet}',
        f"{lacks} || continue",
        f'for s in /usr/src/nvidia*-{version}; do [ -e "$s/dkms.conf" ] || continue; n=${{s##*/}}',
        f'dkms install -m "${{n%-{version}}}" -v {version} -k "$k" {quiet}; done',
        "done",
    ]


def _module_check_commands(version: str, words: str) -> list[str]:
    look = "look at dkms status and /var/lib/dkms/nvidia*/*/build/make.log"
    has = f'[ "$({_MODULE_OF_K})" = {version} ]'
    return [
        f"found=; for d in /lib/modules/*; do k=${{d##*/}}; {has} && found=yes; done",
        f'[ -n "$found" ] || {{ echo {shlex.quote(f"{words}; {look}")} >&2; tell; }}',
    ]


def _next_kernel_check(version: str) -> str:
    """Check that the upgraded kernel has the module for its next boot."""
    has = f'[ "$(modinfo -k "$n" -F version nvidia 2>/dev/null)" = {shlex.quote(version)} ]'
    words = f"driver: there is no module of driver {version} for kernel $n, which boots next"
    return f'{_NEWEST_KERNEL}; [ -z "$n" ] || {has} || {{ echo "{words}" >&2; tell; }}'


def hold_script(system: OperatingSystem, names: Sequence[str]) -> str:
    """Hold packages, so that none is upgraded without the others."""
    if system.uses_apt:
        return explaining_script([f"run apt-mark hold {_quoted_names(names)}"])
    return explaining_script(
        [
            "rpm -q python3-dnf-plugin-versionlock >/dev/null 2>&1 || "
            f"run {DNF} install python3-dnf-plugin-versionlock",
            f"run {DNF} versionlock add {_quoted_names(names)}",
        ]
    )


def initramfs_command(system: OperatingSystem) -> str:
    """Rebuild the initramfs of every kernel, if the host has a program for it."""
    program = "update-initramfs -u -k all" if system.uses_apt else "dracut --force --regenerate-all"
    name = program.split()[0]
    # Containers boot without one.
    return f"! command -v {name} >/dev/null 2>&1 || run {program}"


def write_command(path: str, content: str) -> str:
    """Write a small file without secrets, by a rename."""
    put = f"printf %s {shlex.quote(content)} >{path}.new && chmod 644 {path}.new"
    return f"mkdir -p {path.rpartition('/')[0]} && {put} && mv -f {path}.new {path} || exit 1"


_NEWEST_KERNEL = "n=$(ls -1 /boot | sed -n 's/^vmlinuz-//p' | grep -v rescue | sort -V | tail -n 1)"
# A reboot clears /run, and so this mark.
_KERNEL_MARK = (
    f"{_NEWEST_KERNEL}; "
    '[ -z "$n" ] || [ "$n" = "$(uname -r)" ] || echo "$n" >/run/llm-kernel-upgraded'
)


def _amdgpu_mark(version: str) -> str:
    # Written before the packages are installed: completing an interrupted installation does not
    # write it.
    return f"echo {shlex.quote(version)} >/run/llm-amdgpu-upgraded"


def _quoted_names(names: Iterable[str]) -> str:
    return " ".join(shlex.quote(name) for name in names)
