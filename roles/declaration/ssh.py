"""How pyinfra reaches hosts and gains rights there: the names and values of its own data. Pure.

pyinfra checks some types when it connects, and other values not at all.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from roles.host import printed

Rule = tuple[Callable[[Any], Any], str]

_MAX_LENGTH = 4096
_DAY_S = 86_400
_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:%-]*")
_USER = re.compile(r"[\w.][\w.@+\\-]*\$?")


def _is_text(value: Any) -> bool:
    return (
        isinstance(value, str)
        and bool(value.strip())
        and value.isprintable()
        and len(value) <= _MAX_LENGTH
    )


def _whole(first: int, last: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and first <= value <= last


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _DAY_S


TEXT: Rule = (_is_text, "is no text; write it in quotes, printable")
FLAG: Rule = (lambda value: isinstance(value, bool), "is unknown; write True or False")
SECONDS: Rule = (_seconds, f"is no time; write seconds from 0 to {_DAY_S}")
PORT: Rule = (_whole(1, 65535), "is no port; write a number from 1 to 65535")
MAPPING: Rule = (lambda value: isinstance(value, Mapping), "is no mapping; write {…}")
ANY: Rule = (lambda value: True, "")


def _one_of(*known: str) -> Rule:
    return lambda value: value in known, f"is unknown; use one of {', '.join(known)}"


def _matching(pattern: re.Pattern[str], what: str) -> Rule:
    return lambda value: pattern.fullmatch(value), f"is no {what}; correct it"


# The arguments that paramiko 4 takes for a connection; texts for those of other types stay free.
PARAMIKO: Mapping[str, Rule] = {
    **dict.fromkeys(("timeout", "banner_timeout", "auth_timeout", "channel_timeout"), SECONDS),
    **dict.fromkeys(("allow_agent", "look_for_keys", "compress", "gss_auth", "gss_kex"), FLAG),
    **dict.fromkeys(("gss_deleg_creds", "gss_trust_dns"), FLAG),
    **dict.fromkeys(("username", "password", "passphrase", "gss_host"), TEXT),
    **dict.fromkeys(("pkey", "key_filename", "sock", "disabled_algorithms"), ANY),
    **dict.fromkeys(("transport_factory", "auth_strategy"), ANY),
    "port": PORT,
}
# The keys that pyinfra's ssh connector knows, and the values that each may have.
_SSH: Mapping[str, Rule] = {
    **dict.fromkeys(("hostname", "user", "key", "config_file", "known_hosts_file"), TEXT),
    **dict.fromkeys(("password", "key_password"), TEXT),
    **dict.fromkeys(("allow_agent", "look_for_keys", "forward_agent"), FLAG),
    **dict.fromkeys(("connect_retry_min_delay", "connect_retry_max_delay"), SECONDS),
    "port": PORT,
    "strict_host_key_checking": _one_of("yes", "accept-new", "ask", "no", "off"),
    "file_transfer_protocol": _one_of("sftp", "scp"),
    "connect_retries": (_whole(0, 100), "is no number of tries; write one from 0 to 100"),
    "paramiko_connect_kwargs": MAPPING,
}
# What a text must be beside being one.
_TEXTS: Mapping[str, Rule] = {
    "ssh_hostname": _matching(_HOST, "name or address of a host"),
    "ssh_user": _matching(_USER, "name of a user"),
}
SSH = tuple(f"ssh_{name}" for name in _SSH)
# pyinfra's global arguments, which data may set.
ARGUMENTS: Mapping[str, Rule] = {
    **dict.fromkeys(("_sudo", "_use_sudo_login", "_preserve_sudo_env", "_doas", "_dzdo"), FLAG),
    **dict.fromkeys(("_use_su_login", "_preserve_su_env", "_get_pty", "_run_once"), FLAG),
    **dict.fromkeys(("_ignore_errors", "_continue_on_error", "_serial"), FLAG),
    **dict.fromkeys(("_sudo_user", "_sudo_password", "_su_user", "_su_shell"), TEXT),
    **dict.fromkeys(("_su_password", "_doas_user", "_dzdo_user", "_shell_executable"), TEXT),
    **dict.fromkeys(("_chdir", "_temp_dir"), TEXT),
    **dict.fromkeys(("_retry_until", "_if", "_stdin", "_success_exit_codes"), ANY),
    "_timeout": (_whole(1, _DAY_S), f"is no time; write whole seconds from 1 to {_DAY_S}"),
    "_retry_delay": SECONDS,
    "_retries": (_whole(0, 100), "is no number of tries; write one from 0 to 100"),
    "_parallel": (_whole(0, 10_000), "is no number of hosts; write one from 0 on, 0 for all"),
    "_env": MAPPING,
}
_RULES = {**{f"ssh_{name}": rule for name, rule in _SSH.items()}, **ARGUMENTS}


def value_problems(key: str, value: Any) -> Iterator[str]:
    """What is wrong with a value of pyinfra's own data, and what to do; the text continues the
    place, as in ".timeouts: unknown name; …" or ": is no text; …"."""
    if key in ARGUMENTS and value is None:
        return
    for fits, problem in filter(None, (_RULES.get(key), _TEXTS.get(key))):
        if not fits(value):
            shown = "it" if "password" in key else printed(value)
            yield f": {shown} {problem}"
            return
    if key == "ssh_paramiko_connect_kwargs":
        yield from _paramiko_problems(value)


def _paramiko_problems(given: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in given.items():
        if name not in PARAMIKO:
            yield f": unknown name {printed(name)}; {_hint(str(name), PARAMIKO)}"
        elif not PARAMIKO[name][0](value):
            shown = "it" if name in ("password", "passphrase") else printed(value)
            yield f".{name}: {shown} {PARAMIKO[name][1]}"


def name_problem(key: str) -> str | None:
    """Why a key is no name of pyinfra's data, with a remedy; None for a known one, and for what is
    no name of pyinfra's."""
    if key.lower().startswith("ssh") and key not in SSH:
        return f"unknown key {key!r}; {_hint(key.lower(), SSH)}"
    if key in _RULES:
        return None
    known = ARGUMENTS if key.startswith("_") else SSH
    close = difflib.get_close_matches(key.lower(), known, n=1, cutoff=0.85)
    if close:
        return f"unknown key {key!r}; did you mean {close[0]}?"
    return None


def _hint(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"


def ssh_problems(where: str, data: Mapping[Any, Any]) -> Iterator[str]:
    """The problems of pyinfra's own values in the data of a level, each with its place."""
    for key, value in data.items():
        for problem in value_problems(key, value) if isinstance(key, str) else ():
            yield f"{where}.{key}{problem}"
