"""Benchmarks run over the lab, like the lab's tests."""

from tests.lab.conftest import lab as lab
from tests.lab.conftest import llama as llama
from tests.lab.conftest import llama_fleet as llama_fleet
from tests.lab.conftest import llama_run as llama_run
from tests.lab.conftest import to_llama as to_llama
