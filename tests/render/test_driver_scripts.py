"""The shell scripts: whole, as a shell runs them, and what they make of errors."""

import base64
import os
import re
import subprocess
from pathlib import Path

import pytest

from roles.driver import Choice, OperatingSystem, scripts
from roles.driver.errors import explaining_script, meaning_of
from roles.driver.facts import Refusal
from roles.driver.installation import DriverInstallation
from roles.driver.packages import plan
from tests.unit.driver.hosts import KEY_FILE, KEY_FINGERPRINT

DEBIAN = OperatingSystem("debian", "12", "x86_64")
ROCKY = OperatingSystem("rocky", "9.6", "x86_64")
RHEL = OperatingSystem("rhel", "9.6", "x86_64")
OPEN = Choice("nvidia", 580, None, "open", "dkms", "nvidia")


def todo(system: OperatingSystem, kernel: str, **more) -> DriverInstallation:
    whole = plan(OPEN, system, kernel, None)
    end = "-1" if system.uses_apt else "-1.el9"
    versions = tuple((name, f"580.95.05{end}") for name in whole.driver)
    return DriverInstallation(whole, system, versions, version="580.95.05", **more)


def commands(script: str) -> list[str]:
    """What a script runs, without what all have in common."""
    lines = script.splitlines()
    return lines[next(n for n, line in enumerate(lines) if line.startswith("run()")) + 1 :]


def test_what_apt_installs():
    script = scripts.install_script(
        todo(
            DEBIAN,
            "6.1.0-37-amd64",
            extra=("dkms",),
            headers=("linux-headers-6.1.0-37-amd64",),
            release=("nvidia-driver-cuda",),
            upgraded=("linux-image-amd64",),
        )
    )
    apt = f"run {scripts.APT} install --no-install-recommends --allow-downgrades"
    lines = commands(script)
    start = next(n for n, line in enumerate(lines) if line.startswith("run"))
    assert "".join(lines[:start]).startswith("mkdir -p /etc/apt/preferences.d && printf %s ")
    assert lines[start : start + 4] == [
        "run apt-mark unhold nvidia-driver-cuda",
        f"{apt} linux-headers-6.1.0-37-amd64",
        f"{apt} nvidia-driver-cuda=580.95.05-1 nvidia-kernel-open-dkms=580.95.05-1 "
        "nvidia-persistenced=580.95.05-1 dkms linux-image-amd64",
        "n=$(ls -1 /boot | sed -n 's/^vmlinuz-//p' | grep -v rescue | sort -V | tail -n 1); "
        '[ -z "$n" ] || [ "$n" = "$(uname -r)" ] || echo "$n" >/run/llm-kernel-upgraded',
    ]


@pytest.mark.parametrize(
    ("system", "crb", "epel"),
    [
        (
            ROCKY,
            "dnf config-manager --set-enabled crb",
            f"run {scripts.DNF} install epel-release",
        ),
        (
            RHEL,
            "{ subscription-manager repos --enable codeready-builder-for-rhel-9-x86_64-rpms || "
            "dnf config-manager --set-enabled codeready-builder-for-rhel-9-rhui-rpms; }",
            scripts._epel_of_fedora(),
        ),
    ],
)
def test_what_dnf_installs(system: OperatingSystem, crb: str, epel: str):
    kernel = "5.14.0-570.12.1.el9_6.x86_64"
    headers = (f"kernel-devel-{kernel}",)
    script = scripts.install_script(
        todo(system, kernel, extra=("dkms",), headers=headers, release=("nvidia-driver-cuda",))
    )
    dnf = f"run {scripts.DNF}"
    assert commands(script)[:5] == [
        f"rpm -q dkms >/dev/null 2>&1 || dnf -q repoquery --available dkms 2>/dev/null | "
        f"grep -q . || {{ {dnf} install dnf-plugins-core; "
        f'{crb} >"$log" 2>&1 </dev/null; {epel}; }}',
        "dnf -q module list --enabled nvidia-driver 2>/dev/null | grep -qE ' 580-open .*\\[e\\]' "
        f"|| {{ {dnf} module reset nvidia-driver; {dnf} module enable nvidia-driver:580-open; }}",
        f"{dnf} versionlock delete nvidia-driver-cuda",
        f"{dnf} install {' '.join(headers)}",
        f"{dnf} install --setopt=install_weak_deps=False --allowerasing "
        "nvidia-driver-cuda-580.95.05-1.el9 kmod-nvidia-open-dkms-580.95.05-1.el9 "
        "nvidia-persistenced-580.95.05-1.el9 dkms",
    ]


@pytest.mark.parametrize(("works", "status"), [("-p", 0), ("nowhere", 1)])
def test_a_log_that_cannot_be_in_tmp_has_no_name_that_can_be_foreseen(
    works: str, status: int, tmp_path: Path
):
    """As where the disk is full: nobody's file or link of that name may be written to."""
    (tmp_path / "mktemp").write_text(
        f'#!/bin/sh\n[ "$1" = {works} ] && [ "$2" = /dev/shm ] || exit 1\n'
        f"exec /usr/bin/mktemp -p {tmp_path}\n"
    )
    (tmp_path / "mktemp").chmod(0o755)
    done = subprocess.run(
        ["dash", "-c", explaining_script(['run true; echo "$log"'])],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == status and "llm-driver" not in done.stdout
    assert done.stdout.startswith(f"{tmp_path}/tmp." if status == 0 else "")


@pytest.mark.parametrize(
    ("fingerprint", "served", "installed"),
    [
        (KEY_FINGERPRINT, "", True),
        (scripts.EPEL_KEY, "", False),
        (KEY_FINGERPRINT[:-1] + "0", "", False),
        (KEY_FINGERPRINT, "<html>a captive portal</html>", False),
    ],
)
def test_nothing_of_epel_is_installed_that_another_key_signs(
    fingerprint: str,
    served: str,
    installed: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(scripts, "EPEL_KEY", fingerprint)
    key = tmp_path / "key"
    key.write_text(served or KEY_FILE.read_text())
    programs = {
        "curl": f'while [ "$1" != -o ]; do shift; done; cp {key} "$2"',
        "rpm": f'echo "rpm $*" >>{tmp_path}/ran',
        "dnf": f'echo "dnf $*" >>{tmp_path}/ran',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run(
        ["dash", "-c", explaining_script([scripts._epel_of_fedora()])],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", "GNUPGHOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    ran = (tmp_path / "ran").read_text() if (tmp_path / "ran").exists() else ""
    assert (done.returncode == 0, "rpm --import" in ran) == (installed, installed), done.stderr
    assert ("install --setopt=localpkg_gpgcheck=1 https://dl.fedoraproject" in ran) is installed
    assert ("is not EPEL's key" in done.stderr) is not installed


@pytest.mark.parametrize(("built", "ok"), [("580.95.05", True), ("", False)])
def test_a_kernel_that_came_along_must_have_a_module(built: str, ok: bool, tmp_path: Path):
    for kernel, version in (("6.1.0-37-amd64", "580.95.05"), ("6.1.0-40-amd64", built)):
        (tmp_path / "modules" / kernel).mkdir(parents=True)
        (tmp_path / "modules" / kernel / "version").write_text(version)
        (tmp_path / "boot").mkdir(exist_ok=True)
        (tmp_path / "boot" / f"vmlinuz-{kernel}").touch()
    (tmp_path / "modinfo").write_text(f'#!/bin/sh\ncat "{tmp_path}/modules/$2/version"\n')
    (tmp_path / "modinfo").chmod(0o755)
    whole = todo(DEBIAN, "6.1.0-37-amd64", upgraded=("linux-image-amd64",))
    lines = commands(scripts.install_script(whole))
    start = next(n for n, line in enumerate(lines) if line.startswith("for d in"))
    check = explaining_script(lines[start:]).replace("/boot", f"{tmp_path}/boot")
    done = subprocess.run(
        ["dash", "-c", check.replace("/lib/modules", f"{tmp_path}/modules")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if ok else 1)
    message = (
        "driver: there is no module of driver 580.95.05 for kernel 6.1.0-40-amd64, which boots"
    )
    assert (message in done.stderr) is not ok


@pytest.mark.parametrize(
    ("expected_message", "status", "refusal"),
    [
        ("Inst nvidia-utils-580-server", 0, None),
        (
            "Reading package lists...\nE: Unable to correct\n  x : Depends: y but",
            100,
            "E: Unable to correct x : Depends: y but",
        ),
    ],
)
def test_apt_is_asked_first(
    expected_message: str, status: int, refusal: str | None, tmp_path: Path
):
    tool = tmp_path / "apt-get"
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{expected_message}\nEOF\nexit {status}\n")
    tool.chmod(0o755)
    command = Refusal().command(["a=1", "b"])
    assert " -s " in command and command.count("a=1 b") == 1
    done = subprocess.run(
        ["dash", "-c", command],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert Refusal().process(done.stdout.splitlines()) == refusal


def test_what_is_held():
    names = ["kernel", "nvidia-driver-cuda"]
    assert commands(scripts.hold_script(DEBIAN, names)) == [
        "run apt-mark hold kernel nvidia-driver-cuda"
    ]
    assert commands(scripts.hold_script(ROCKY, names)) == [
        "rpm -q python3-dnf-plugin-versionlock >/dev/null 2>&1 || "
        f"run {scripts.DNF} install python3-dnf-plugin-versionlock",
        f"run {scripts.DNF} versionlock add kernel nvidia-driver-cuda",
    ]


def test_the_initramfs_is_rebuilt_by_the_systems_program():
    assert scripts.initramfs_command(DEBIAN).endswith("run update-initramfs -u -k all")
    assert scripts.initramfs_command(ROCKY).endswith("run dracut --force --regenerate-all")


ALL = [
    scripts.install_script(todo(DEBIAN, "6.1.0-37-amd64", restarted="nvidia-fabricmanager")),
    scripts.install_script(todo(ROCKY, "5.14.0-1.el9.x86_64")),
    scripts.install_script(todo(RHEL, "5.14.0-1.el9.x86_64", upgraded=("kernel",))),
    scripts.repository_script(plan(OPEN, DEBIAN, "6.1.0-37-amd64", None), DEBIAN),
    scripts.repository_script(plan(OPEN, ROCKY, "5.14.0-1.el9.x86_64", None), ROCKY),
    scripts.finish_script(DEBIAN, ["libcuda1"]),
    scripts.finish_script(ROCKY, []),
    scripts.hold_script(DEBIAN, ["x"]),
    explaining_script([scripts.initramfs_command(DEBIAN), scripts.initramfs_command(ROCKY)]),
]


@pytest.mark.parametrize("script", ALL)
def test_every_script_is_one_of_a_posix_shell(script: str):
    done = subprocess.run(["dash", "-n"], input=script.encode(), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    # Between operators there is nothing that would take a failed command's status for granted.
    assert "&& run" not in script


ERRORS = [
    ("E: You don't have enough free space in /var/cache/apt/archives/.", "the disk is full"),
    ("dpkg: error processing archive x (--unpack): No space left on device", "the disk is full"),
    ("E: Failed to fetch http://m/x.deb  404  Not Found [IP: 1.2.3.4 80]", "no such file"),
    ("E: The repository 'http://m/ Release' does not have a Release file.", "no such file"),
    ("Errors during downloading metadata: Status code: 404 for http://m/r", "no such file"),
    ("E: Failed to fetch http://m/x  403  Forbidden", "the repository refuses"),
    ("W: GPG error: http://m InRelease: NO_PUBKEY A4B469963BF863CC", "signed by another key"),
    ("E: The repository 'http://m/ InRelease' is not signed.", "signed by another key"),
    ("Public key for x.rpm is not installed. Error: GPG check FAILED", "signed by another key"),
    ("E: Failed to fetch http://m/x.deb  Hash Sum mismatch", "changed while it was read"),
    ("E: Failed to fetch http://m/  Could not resolve 'm'", "cannot be reached"),
    ("E: Failed to fetch http://m/  Could not connect to m:80. - connect (111: C", "cannot be re"),
    ("Curl error (7): Couldn't connect to server for http://m/repomd.xml", "cannot be reached"),
    ("E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by 7", "another program inst"),
    ("dpkg: error: dpkg frontend lock is locked by another process", "another program inst"),
    ("E: Unable to correct problems, you have held broken packages.", "do not fit together"),
    ("Error: \n Problem: conflicting requests\n  - nothing provides x", "do not fit together"),
    ("E: Unable to locate package nvidia-driver-cuda", "does not have that package"),
    ("Error: Unable to find a match: kmod-nvidia-open-dkms", "does not have that package"),
    ("Error: Problems in request:\nmissing groups or modules: nvidia-driver:1", "does not have th"),
    ("Error! Bad return status for module build on kernel: 6.1", "DKMS could not build"),
    ("E: dpkg was interrupted, you must manually run 'dpkg --configure -a'", "was cut off"),
]


@pytest.mark.parametrize(("expected_message", "means"), ERRORS)
def test_errors_are_told_in_words(expected_message: str, means: str, tmp_path: Path):
    tool = tmp_path / "apt-get"
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\nReading lists\n{expected_message}\nEOF\nexit 100\n")
    tool.chmod(0o755)
    script = explaining_script(["run apt-get install x", "echo went on"])
    done = subprocess.run(
        ["dash", "-c", script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert means in done.stderr.splitlines()[-1]
    assert expected_message.splitlines()[-1] in done.stderr
    assert done.stderr.splitlines()[-1] == f"driver: {meaning_of(expected_message)}"


def test_an_unknown_error_is_shown_as_it_is(tmp_path: Path):
    script = explaining_script(["run sh -c 'echo strange; exit 3'"])
    done = subprocess.run(["dash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "strange\n")


@pytest.mark.parametrize(
    ("status", "expected_message", "ok"),
    [
        (0, "Hit:1 http://m InRelease", True),
        (100, "Err:1 http://m Release\n  404  Not Found", False),
        # Old apt ends with 0 where an index could not be read, and only warns.
        (0, "W: Failed to fetch http://m/InRelease  Could not resolve 'm'", False),
    ],
)
def test_a_repository_is_written_only_once_its_index_was_read(
    status: int, expected_message: str, ok: bool, tmp_path: Path
):
    """With a stand-in for apt-get, below a folder in place of the root."""
    from roles.host import HostFile, archive

    whole = plan(OPEN, DEBIAN, "6.1.0-37-amd64", "http://m")
    wanted, preferences = whole.repository, whole.preferences
    assert wanted is not None and preferences is not None
    tool = tmp_path / "apt-get"
    tool.write_text(f"#!/bin/sh\ncat <<'EOF'\n{expected_message}\nEOF\nexit {status}\n")
    tool.chmod(0o755)
    root = tmp_path / "root"
    script = scripts.repository_script(whole, DEBIAN)
    for path in (wanted.key_path, wanted.path, preferences[0].rpartition("/")[0]):
        script = re.sub(rf"(?<=[ >]){re.escape(path)}", f"{root}{path}", script)
    files = [HostFile(wanted.key_path, "KEY"), HostFile(wanted.path, wanted.content)]
    done = subprocess.run(
        ["dash", "-c", script],
        input=archive(files),
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if ok else 1), done.stderr
    assert (root / wanted.path[1:]).exists() is ok
    # Without them every package of the repository would be offered to the host.
    assert (root / preferences[0][1:]).exists() is ok
    if ok:
        assert (root / wanted.path[1:]).read_text() == wanted.content
    else:
        assert done.stderr.startswith("driver: http://m/debian12/x86_64/InRelease was requested\n")


@pytest.mark.parametrize(
    ("versions", "known", "source", "ok"),
    [
        ({"6.1.0-37-amd64": "580.95.05"}, False, "", True),
        ({"6.1.0-37-amd64": "570.172.08"}, False, "", False),
        # What the packages' own DKMS run has missed is built now.
        ({"6.1.0-37-amd64": "570.172.08"}, True, "", True),
        # DKMS no longer knows of a module whose upgrade was cut off; its sources are there.
        ({"6.1.0-37-amd64": ""}, False, "nvidia-580.95.05", True),
        ({"6.1.0-37-amd64": ""}, False, "nvidia-srv-580.95.05", True),
        ({"6.1.0-37-amd64": ""}, False, "nvidia-570.172.08", False),
        ({"6.1.0-37-amd64": "", "6.1.0-35-amd64": "580.95.05"}, False, "", True),
        ({}, False, "nvidia-580.95.05", False),
    ],
)
@pytest.mark.parametrize("whole", [True, False])
def test_a_module_must_be_there_in_the_version_of_its_libraries(
    versions: dict[str, str], known: bool, source: str, ok: bool, whole: bool, tmp_path: Path
):
    modules, sources = tmp_path / "modules", tmp_path / "src"
    for kernel, version in versions.items():
        (modules / kernel / "build").mkdir(parents=True)
        (modules / kernel / "version").write_text(version)
    if source:
        (sources / source).mkdir(parents=True)
        (sources / source / "dkms.conf").touch()
    built = f'echo 580.95.05 >"{modules}/$kernel/version"'
    name = source.removesuffix("-580.95.05")
    programs = {
        "modinfo": f'cat "{modules}/$2/version"',
        "dkms": 'case "$1 $2 $3 $4 $5" in\n'
        f'"autoinstall -k "*) kernel=$3; {built if known else "exit 1"} ;;\n'
        f'"install -m {name} -v 580.95.05") kernel=$7; {built} ;;\n*) exit 1 ;;\nesac',
    }
    for program, text in programs.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / program).chmod(0o755)
    check = scripts.rebuild_script("580.95.05")
    if whole:
        lines = commands(scripts.install_script(todo(DEBIAN, "6.1.0-37-amd64")))
        start = next(n for n, line in enumerate(lines) if line.startswith("for d in"))
        check = explaining_script(lines[start:])
    done = subprocess.run(
        [
            "dash",
            "-c",
            check.replace("/lib/modules", str(modules)).replace("/usr/src", str(sources)),
        ],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if ok else 1)
    message = (
        "there is no module of driver 580.95.05" if whole else "a reboot would leave this host"
    )
    assert (message in done.stderr) is not ok


def test_the_input_reaches_the_archive_and_nobody_else():
    """A package manager that read the script's input would take the files' archive."""
    script = explaining_script(["run cat", 'cat "$log"'])
    given = base64.b64encode(b"x").decode()
    done = subprocess.run(["dash", "-c", script], input=given, capture_output=True, text=True)
    assert done.stdout == ""


def test_without_a_file_of_its_own_a_script_ends(tmp_path: Path):
    (tmp_path / "mktemp").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "mktemp").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", explaining_script(["echo went on"])],
        capture_output=True,
        text=True,
        env={"PATH": path},
    )
    assert (done.returncode, done.stdout) == (1, "")


def test_no_path_below_a_folder_of_everybody_can_be_foreseen():
    roles = Path(__file__).parents[2] / "roles"
    files = [file for file in roles.rglob("*") if file.suffix in (".py", ".sh")]
    written = [
        f"{file.name}: {line.strip()}"
        for file in files
        for line in file.read_text().splitlines()
        if re.search(r"/(?:dev/shm|tmp)/[A-Za-z.$]|\$\$", line)
        and not line.lstrip().startswith("#")
    ]
    assert written == []
