"""`python -m roles.engine lock` refuses what an inventory would refuse, before uv starts."""

import pytest

from roles.engine.__main__ import main

GOOD = "vllm==0.33.0"
INDEX, EXTRA, WHEELS = "--index-url", "--extra-index-url", "--wheelhouse"


@pytest.mark.parametrize(
    ("arguments", "place", "words"),
    [
        *(
            ((GOOD, option, url), option, words)
            for option in (INDEX, EXTRA, WHEELS)
            for url, words in (
                ("https://user:S3CRET@pypi.example.com/simple", "holds credentials"),
                ("https://S3CRET@pypi.example.com/simple", "holds credentials"),
                ("https://pypi.example.com/simple?key=S3CRET", "is not of the form"),
                ("ftp://pypi.example.com/simple", "is not of the form"),
                ("https://[::1", ""),
            )
        ),
        ((GOOD, INDEX, "not a url"), INDEX, "is not of the form"),
        ((GOOD, INDEX, "/etc/passwd\n-r x"), INDEX, "is not of the form"),
        ((GOOD, WHEELS, "nowhere"), WHEELS, "is no folder here"),
        (("torch==2.0.0",), "requirement", "another package than vLLM or SGLang"),
        (("sglang",), "requirement", "is not of the form"),
        (("sglang==0",), "requirement", "is no version of a package"),
        (("sglang==0.5.23", "--python", "3.10"), "--python", "does not run on python3.10"),
        (("vllm",), "requirement", "is not of the form"),
        (("vllm==0.33.0\n-r /etc/passwd",), "requirement", "is not of the form"),
        (("-r /etc/passwd",), "requirement", "is not of the form"),
        (("vllm==0.33.0; python_version>'3'",), "requirement", "is not of the form"),
        ((GOOD, "--uv", "torch==2.0.0"), "--uv", "another package than uv"),
        ((GOOD, "--uv", "uv"), "--uv", "is not of the form"),
        ((GOOD, "--python", "2.7"), "--python", "is not of the form"),
        ((GOOD, "--python", "3.11 --x"), "--python", "is not of the form"),
        ((GOOD, "--python", "3.7"), "--python", "does not run on python3.7"),
    ],
)
def test_what_no_inventory_may_say_is_refused(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], place: str, words: str
):
    assert main(["lock", "--", *arguments] if arguments[0][0] == "-" else ["lock", *arguments]) == 1
    output = capfd.readouterr()
    first, *_, last = output.err.splitlines()
    assert first.startswith(f"{place}: ") and words in first and last == "Nothing was done."
    assert output.out == "" and "S3CRET" not in output.err
