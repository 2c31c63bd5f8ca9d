"""Which cards are sliced how, and what hardware that makes."""

from dataclasses import replace

import pytest
from pydantic import ValidationError

from roles.hardware import (
    Gpu,
    Hardware,
    LinkVerdict,
    declared_hardware,
    difference,
    driver_indexes,
    findings,
)
from roles.hardware.facts import HostReport
from roles.tuning import TuningSettings, with_mig, with_planned_mig
from roles.tuning.mig_cards import by_size
from tests.unit.hardware.hosts import data, output, query, row

H100 = "NVIDIA H100 80GB HBM3"


def h100(count: int = 2) -> Hardware:
    return declared_hardware(f"{count}x {H100}")


def names(hardware: Hardware) -> list[str]:
    return [gpu.name.removeprefix(f"{H100} MIG ") for gpu in hardware.gpus]


def test_slices_stand_in_their_gpus_place_and_the_rest_count_on():
    sliced = with_mig(h100(), {0: ("1g.10gb", "3g.40gb", "2g.20gb")})
    assert names(sliced) == ["3g.40gb", "2g.20gb", "1g.10gb", H100]
    assert [gpu.index for gpu in sliced.gpus] == [0, 1, 2, 3]
    assert [(gpu.mig_parent, gpu.mig_index) for gpu in sliced.gpus[:3]] == [(0, 0), (0, 1), (0, 2)]
    # As of any slice whose memory nobody measured.
    assert sliced.gpus[0].memory_mib == round(40 * 1024 * 0.95)
    assert sliced.links is None


def test_slices_that_are_there_are_kept():
    sliced = with_mig(h100(), {1: ("3g.40gb", "3g.40gb")})
    measured = replace(
        sliced,
        gpus=tuple(
            replace(gpu, memory_mib=40448) if gpu.mig_profile else gpu for gpu in sliced.gpus
        ),
    )
    assert with_mig(measured, {1: ("3g.40gb", "3g.40gb")}) == measured
    other = with_mig(measured, {1: ("4g.40gb", "3g.40gb")})
    assert names(other) == [H100, "4g.40gb", "3g.40gb"]
    both = with_mig(measured, {0: ("7g.80gb",), 1: ("3g.40gb", "3g.40gb")})
    assert names(both) == ["7g.80gb", "3g.40gb", "3g.40gb"]
    assert both.gpus[1].memory_mib == 40448


def test_what_nvidia_smi_calls_the_gpu_of_a_device():
    sliced = with_mig(h100(3), {1: ("3g.40gb", "3g.40gb")})
    assert driver_indexes(sliced) == {0: 0, 1: 1, 2: 1, 3: 2}
    assert driver_indexes(h100()) == {0: 0, 1: 1}


def test_what_is_known_between_whole_gpus_stays():
    """Links and verdicts of slices and of GPUs that become slices are none any more."""
    two = ("3g.40gb", "3g.40gb")
    linked = replace(
        h100(4),
        links=((0, 1, "NV18"), (0, 2, "NV12"), (1, 2, "NV4"), (1, 3, "SYS"), (2, 3, "PIX")),
        p2p=((0, 2, "OK"), (2, 3, "CNS")),
        interconnect=tuple(
            LinkVerdict(gpus, p2p, "works" if gpus == (0, 2) else "hangs")
            for gpus in ((0, 1), (0, 2), (2, 3), (0, 2, 3), (0, 1, 2, 3))
            for p2p in (True, False)
        ),
    )
    sliced = with_mig(linked, {1: two})
    # The GPUs 0, 2 and 3 are now the devices 0, 3 and 4.
    assert sliced.links == ((0, 3, "NV12"), (3, 4, "PIX"))
    assert sliced.p2p == ((0, 3, "OK"), (3, 4, "CNS"))
    assert [(one.gpus, one.p2p, one.outcome) for one in sliced.interconnect] == [
        ((0, 3), True, "works"),
        ((0, 3), False, "works"),
        ((3, 4), True, "hangs"),
        ((3, 4), False, "hangs"),
        ((0, 3, 4), True, "hangs"),
        ((0, 3, 4), False, "hangs"),
    ]
    # As such a host is recorded, and read again.
    assert with_mig(sliced, {1: two}) == sliced
    more = with_mig(sliced, {0: two, 1: two})
    assert (more.links, more.p2p) == (((4, 5, "PIX"),), ((4, 5, "CNS"),))
    assert [one.gpus for one in more.interconnect] == [(4, 5), (4, 5)]
    none = with_mig(linked, dict.fromkeys(range(4), two))
    assert (none.links, none.p2p, none.interconnect) == (None, None, ())


@pytest.mark.parametrize("mig", [None, {}])
def test_nothing_declared_changes_nothing(mig: dict | None):
    hardware = declared_hardware("2x NVIDIA L40S", "pcie")
    assert with_mig(hardware, mig) is hardware


@pytest.mark.parametrize(
    ("card", "profiles"),
    [
        (H100, ["1g.10gb"] * 7),
        (H100, ["3g.40gb", "2g.20gb", "1g.10gb", "1g.10gb"]),
        (H100, ["4g.40gb", "1g.20gb", "2g.20gb"]),
        (H100, ["1g.10gb+me"] + ["1g.10gb"] * 6),
        ("NVIDIA A100-SXM4-40GB", ["3g.20gb", "3g.20gb"]),
        ("NVIDIA A100 80GB PCIe", ["1g.20gb"] * 4),
        ("NVIDIA A30", ["2g.12gb", "1g.6gb", "1g.6gb"]),
        ("NVIDIA H200", ["1g.18gb", "1g.18gb", "2g.35gb", "3g.71gb"]),
        ("NVIDIA B200", ["7g.180gb"]),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", ["2g.48gb", "1g.24gb", "1g.24gb+gfx"]),
        # Can be sliced, but nobody here knows how.
        ("NVIDIA A100-SXM-64GB", ["3g.32gb"]),
    ],
)
def test_layouts_that_a_card_takes(card: str, profiles: list[str]):
    hardware = declared_hardware(f"1x {card}")
    assert [gpu.mig_profile for gpu in with_mig(hardware, {0: profiles}).gpus] == list(
        by_size(profiles)
    )


@pytest.mark.parametrize(
    ("card", "profiles", "message"),
    [
        ("NVIDIA L40S", ["1g.10gb"], "NVIDIA L40S cannot be sliced"),
        ("AMD Instinct MI300X", ["1g.10gb"], "MI300X cannot be sliced"),
        (H100, ["1g.5gb"], "no profile 1g.5gb; choose among 1g.10gb, 1g.20gb, 2g.20gb"),
        # Seven slices of computing, but nine eighths of the memory.
        (H100, ["3g.40gb", "3g.40gb", "1g.10gb"], "do not fit"),
        (H100, ["4g.40gb", "4g.40gb"], "do not fit"),
        (H100, ["1g.20gb"] * 4 + ["1g.10gb"], "do not fit"),
        (H100, ["1g.10gb+me", "1g.10gb+me"], "only one slice can have them"),
        (H100, ["1g.10gb+gfx"], r"no \+gfx profile"),
        ("NVIDIA A30", ["2g.12gb", "2g.12gb", "1g.6gb"], "do not fit"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", ["1g.24gb"] * 5, "it has 4 slices"),
    ],
)
def test_layouts_that_a_card_does_not_take(card: str, profiles: list[str], message: str):
    with pytest.raises(ValueError, match=rf"^mig\[0\]: .*{message}"):
        with_mig(declared_hardware(f"1x {card}"), {0: profiles})


def test_a_slice_is_not_sliced_again():
    slices = Gpu(0, "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448)
    declared = Hardware((slices, replace(slices, index=1)))
    with pytest.raises(ValueError, match=r"^mig\[0\]: GPU 0 is declared as a slice.*whole GPUs"):
        with_mig(declared, {0: ("3g.40gb", "3g.40gb")})


def test_a_gpu_that_is_not_there():
    with pytest.raises(ValueError, match=r"mig\[2\]: there is no GPU 2; the host has 0, 1"):
        with_mig(h100(), {2: ("7g.80gb",)})


@pytest.mark.parametrize(
    ("mig", "message"),
    [
        ({0: []}, "GPU 0 has no slice"),
        ({0: ["4g.40gb", "4g.40gb"]}, "are 8 slices; a GPU has at most 7"),
        ({0: ["3g.40"]}, "should match pattern"),
        ({-1: ["3g.40gb"]}, "greater than or equal to 0"),
    ],
)
def test_settings_that_no_card_takes(mig: dict, message: str):
    with pytest.raises(ValidationError, match=message):
        TuningSettings.model_validate({"mig": mig})


def report(**parts: str):
    return HostReport().process(output(**parts))


def whole(mode: str = "Disabled") -> str:
    more = {"total": "81559", "capability": "9.0", "mig": mode}
    return query(row(0, H100, **more), row(1, H100, **more | {"mig": "Disabled"}))


LISTED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-00000000-0000-0000-0000-000000000000)
  MIG 3g.40gb     Device  0: (UUID: MIG-00000000-0000-0000-0000-000000000000)
  MIG 3g.40gb     Device  1: (UUID: MIG-00000001-0000-0000-0000-000000000000)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-00000001-0000-0000-0000-000000000000)
"""


@pytest.mark.parametrize(
    "parts",
    [
        {"query": whole()},
        {"query": whole("Enabled")},
        {"query": whole("Enabled"), "list": LISTED},
        {"query": whole("Enabled"), "list": LISTED.replace("3g.40gb", "1g.10gb")},
    ],
    ids=["whole", "mode without slices", "as declared", "sliced otherwise"],
)
def test_a_host_agrees_before_and_after(parts: dict[str, str]):
    mig = {0: ("3g.40gb", "3g.40gb")}
    expected = with_mig(h100(), mig)
    seen = with_planned_mig(report(**parts), mig)
    assert difference(expected, seen) is None
    assert seen.blocking_faults == ()


def test_what_is_not_declared_still_differs():
    mig = {0: ("3g.40gb", "3g.40gb")}
    expected = with_mig(h100(), mig)
    one = report(query=query(row(0, H100, total="81559", capability="9.0", mig="Disabled")))
    assert "GPU 2 is missing" in (difference(expected, with_planned_mig(one, mig)) or "").replace(
        f" ({H100})", ""
    )
    other = with_planned_mig(report(), mig)
    assert "NVIDIA L40S" in (difference(expected, other) or "")
    assert difference(expected, with_planned_mig(report(query=whole()), None)) is not None


def test_a_slices_memory_is_near_what_its_profile_promises():
    """nvidia-smi -q of real cards: what each promises, in MiB, and what it has."""
    promised = with_mig(declared_hardware("1x NVIDIA H200"), {0: ("1g.18gb",)})
    real = replace(promised, gpus=(replace(promised.gpus[0], memory_mib=16384),))
    assert list(findings(promised, real)) == []
    half = replace(promised, gpus=(replace(promised.gpus[0], memory_mib=8192),))
    assert "8192 MiB" in next(findings(promised, half))


def test_real_lists_are_the_layouts_that_they_show():
    seen = report(
        query=query(
            *(
                row(i, "NVIDIA A100-SXM4-80GB", total="81920", capability="8.0", mig=mode)
                for i, mode in enumerate(["Enabled", "Disabled", "Disabled", "Disabled"])
            )
        ),
        list=data("smi-L/4x-a100-mixed-mig_telegraf-5812.txt"),
    )
    declared = with_mig(declared_hardware("4x NVIDIA A100-SXM4-80GB"), {0: ("1g.20gb",) * 4})
    assert difference(declared, seen) is None
    assert seen.hardware is not None
    assert with_mig(seen.hardware, {0: ("1g.20gb",) * 4}).gpus == seen.hardware.gpus
