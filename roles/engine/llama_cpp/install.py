"""The installation of llama.cpp: from archives, or built on the host from its source. Pure."""

from roles.engine.archive import archive_script, unpacked
from roles.engine.install import report_phase
from roles.engine.llama_cpp.settings import LlamaCppSettings

# A build for every card of CUDA takes a slow host this long.
BUILD_S = 4 * 3600
# Without tests, examples and the web page, which it would download.
_OPTIONS = (
    *("CMAKE_BUILD_TYPE=Release", "BUILD_SHARED_LIBS=OFF", "LLAMA_BUILD_TESTS=OFF"),
    *("LLAMA_BUILD_EXAMPLES=OFF", "LLAMA_BUILD_APP=OFF", "LLAMA_BUILD_UI=OFF"),
    *("LLAMA_USE_PREBUILT_UI=OFF", "LLAMA_OPENSSL=OFF", "GGML_CCACHE=OFF"),
)
_OF_DEVICE = {"cuda": ("GGML_CUDA=ON",), "rocm": ("GGML_HIP=ON",), "cpu": ()}


def script(build: LlamaCppSettings) -> str:
    """Unpack the archives, or build the source where there is no archive, or the host's C library
    is older than it needs."""
    from_archives = (*unpacked(build.version_name, build.archives), *_BESIDE)
    if not build.sources:
        lines = from_archives
    elif not build.archives:
        lines = _built(build, "")
    else:
        needed = ".".join(map(str, build.archive_glibc))
        lines = (
            "has=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)",
            f'if [ "$(printf \'%s\\n\' {needed} "$has" | sort -V | head -n 1)" = {needed} ]; then',
            *from_archives,
            "else",
            *_built(build, f": the archive needs glibc {needed}"),
            "fi",
        )
    first_start = 'LD_LIBRARY_PATH="$new" timeout 60 "$new/llama-server" --version >&2'
    return archive_script(build.version_name, lines, "llama-server", [first_start])


# Libraries of an archive of their own belong beside the program, which looks for them there.
_BESIDE = (
    'program=$(find "$stage/unpacked" -type f -name llama-server | head -n 1)',
    '[ -z "$program" ] || find "$stage/unpacked" -name "lib*.so*" ! -path '
    '"$(dirname "$program")/*" -exec mv -n -t "$(dirname "$program")" {} +',
)


def _built(build: LlamaCppSettings, why: str) -> tuple[str, ...]:
    number = build.version.removeprefix("b")
    options = (*_OPTIONS, *_OF_DEVICE[build.device], f"LLAMA_BUILD_NUMBER={number}")
    defined = " ".join(f"-D{option}" for option in (*options, "LLAMA_BUILD_COMMIT=source"))
    return (
        *unpacked(build.version_name, build.sources),
        'source=$(find "$stage/unpacked" -maxdepth 3 -type d -name ggml -printf "%h\\n" | '
        "head -n 1)",
        '[ -n "$source" ] || fail "the source holds no ggml; name the one of llama.cpp"',
        report_phase(build.version_name, f"build from source{why}"),
        # The toolkits of CUDA and ROCm are not in the PATH.
        'export PATH="$PATH:/usr/local/cuda/bin:/opt/rocm/bin"',
        f'{{ cmake -S "$source" -B "$stage/unpacked/build" -G Ninja {defined} && '
        f'nice timeout {BUILD_S} cmake --build "$stage/unpacked/build" --target llama-server; }} '
        '>"$stage/log" 2>&1 || { tail -n 15 "$stage/log" >&2; fail "llama.cpp could not be '
        'built; nothing was installed"; }',
    )
