"""The shell script that installs an engine of Python packages on a host. Pure."""

import shlex
from collections.abc import Sequence

from roles.engine.deployment import Installation
from roles.engine.install import COMPLETE, report_phase
from roles.engine.lock import entries
from roles.engine.packages import PackagesBuild
from roles.host.paths import ENGINES


def engine_script(settings: PackagesBuild, first_start: str, after: Sequence[str] = ()) -> str:
    """Install the engine into its versioned folder; the lock is read from the standard input.

    `first_start` is a program of its environment, with arguments, that ends at once; `after` are
    lines that come before it, once the packages are there.

    The folder is valid only once its last file, `.complete`, exists. The rest of an interrupted run
    is removed first. Other versions stay: replicas use them until they restart.
    """
    name = settings.version_name
    new = f"{ENGINES}/{name}"
    sources = " ".join(shlex.quote(option) for option in source_options(settings))
    what = shlex.quote(settings.requirement)
    if settings.lock_text:
        what = '-r "$new/requirements.lock" --no-deps'
    hashes = "" if settings.allow_unhashed else "--require-hashes "
    return "\n".join(
        [
            "set -eu",
            f"new={new}",
            # Two concurrent deploys would remove each other's files.
            f"mkdir -p {ENGINES}; exec 9>{ENGINES}/.lock",
            "flock -n 9 || { echo 'another deploy installs an engine on this host; wait for it and "
            "run again' >&2; exit 1; }",
            'rm -rf "$new"',
            report_phase(name, "environment"),
            # Bytecode is compiled here: the units may not write into this folder.
            f'{settings.python} -m venv "$new"',
            'cat > "$new/requirements.lock"',
            *_installer(settings),
            report_phase(name, "download and install packages"),
            # Compiled once here: the units may not write into this folder.
            f'"$new/bin/uv" pip install -q {hashes}--no-config --no-cache --compile-bytecode '
            f'--python "$new/bin/python" {sources} {what} >&2',
            *after,
            report_phase(name, "first start"),
            f'timeout 600 "$new/bin/"{first_start} >&2',
            f'touch "$new/{COMPLETE}"',
        ]
    )


def _installer(settings: PackagesBuild) -> list[str]:
    """Install uv, which installs the other packages; the lock has it, too."""
    pip = f'"$new/bin/python" -m pip install -q {pip_options(settings)}'
    if settings.allow_unhashed:
        return [f"{pip} {shlex.quote(settings.uv)} >&2"]
    entry = shlex.quote(entries(settings.lock_text).get(settings.uv, ""))
    return [
        f"""printf '%s\\n' {entry} > "$new/installer.lock\"""",
        f'{pip} --require-hashes --no-deps -r "$new/installer.lock" >&2',
    ]


def source_options(settings: PackagesBuild) -> list[str]:
    """uv's options for the source of packages."""
    if settings.wheelhouse:
        return ["--no-index", "--find-links", settings.wheelhouse]
    options = ["--default-index", settings.index_url] if settings.index_url else []
    for url in settings.extra_index_urls:
        options += ["--index", url]
    return options


def pip_options(settings: PackagesBuild) -> str:
    """pip's options for uv, the only package that pip installs."""
    if settings.wheelhouse:
        return f"--no-index --find-links {shlex.quote(settings.wheelhouse)}"
    return f"--index-url {shlex.quote(settings.index_url)}" if settings.index_url else ""


def installation(
    settings: PackagesBuild, first_start: str, after: Sequence[str] = ()
) -> Installation:
    """The installation of a build; the lock is the script's standard input."""
    return Installation(
        settings.version_name,
        settings.system_packages,
        engine_script(settings, first_start, after),
        settings.lock_text,
    )
