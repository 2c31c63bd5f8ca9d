"""Benchmarks run over the lab, like the lab's tests."""

from tests.lab.conftest import first_run as first_run
from tests.lab.conftest import fleet as fleet
from tests.lab.conftest import lab as lab
