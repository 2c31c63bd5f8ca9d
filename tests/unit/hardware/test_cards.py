import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from roles.hardware.card_names import name_words
from roles.hardware.cards import (
    Card,
    cards_by_pci_id,
    close_names,
    find_card,
    known_cards,
    usable_memory_mib,
)
from roles.hardware.settings import check_card_name

INDEX = Path(__file__).parents[2] / "data/gpu-outputs/index.jsonl"
# Per generation: least and most GB/s of memory and bf16 TFLOPS, from its smallest card to its
# largest (the vendors' product pages).
BOUNDS = {
    "Maxwell": ((70, 350), None),
    "Pascal": ((30, 750), None),
    "Volta": ((800, 1200), (100, 140)),
    "Turing": ((120, 700), (25, 135)),
    "Ampere": ((190, 2100), (15, 320)),
    "Ada": ((200, 1050), (25, 370)),
    "Hopper": ((1900, 5000), (140, 1000)),
    "Blackwell": ((250, 8100), (35, 2600)),
    "CDNA1": ((1200, 1250), (90, 95)),
    "CDNA2": ((1600, 1700), (180, 200)),
    "CDNA3": ((5000, 6100), (900, 1350)),
    "CDNA4": ((7900, 8100), (2200, 2600)),
    "RDNA2": ((200, 600), None),
    "RDNA3": ((500, 1000), (80, 130)),
    "RDNA4": ((300, 700), (90, 200)),
}
WITH_FP8 = {"Ada", "Hopper", "Blackwell", "CDNA3", "CDNA4", "RDNA4"}
LINK_GB_S = {"Ampere": 600, "Volta": 300, "Turing": 100, "Pascal": 160}


def test_cards_are_many_and_ordered_by_name():
    assert len(known_cards()) >= 90
    assert all(one.name < other.name for one, other in pairwise(known_cards()))


def test_every_name_and_alias_means_its_card_alone():
    assert all(
        find_card(name) is card for card in known_cards() for name in (card.name, *card.aliases)
    )


def test_every_name_may_be_declared():
    assert all(check_card_name(card.name) == card.name for card in known_cards())


def test_what_is_printed_finds_the_card_with_its_memory():
    shared = [card for card in known_cards() if card.prints_as]
    assert len(shared) >= 8
    for card in shared:
        assert find_card(card.printed_name, card.memory_mib) in (card, *_twins(card))


def _twins(card: Card) -> list[Card]:
    """Cards of the same memory whose own name holds the printed one (an H100 that says more)."""
    return [
        other
        for other in known_cards()
        if other.memory_mib == card.memory_mib and other.name.startswith(card.printed_name)
    ]


@pytest.mark.parametrize("card", known_cards(), ids=lambda card: card.name)
def test_figures_are_those_of_the_generation(card: Card):
    bandwidth, rate = BOUNDS[card.generation]
    if card.memory_bandwidth_gb_s is not None:
        assert bandwidth[0] <= card.memory_bandwidth_gb_s <= bandwidth[1]
    if card.bf16_dense_tflops is not None:
        assert rate is not None and rate[0] <= card.bf16_dense_tflops <= rate[1]
        assert card.memory_mib is None or card.memory_mib >= 6000
    assert card.memory_mib is None or 2048 <= card.memory_mib <= 300 * 1024
    if card.nvlink_gb_s is not None:
        assert card.nvlink_gb_s <= LINK_GB_S.get(card.generation, 1800)
    assert card.nvlink_gb_s is not None or not card.nvlink_optional
    assert all(re.fullmatch("(10de|1002):[0-9a-f]{4}", device) for device in card.pci_device_ids)
    assert card.pcie_lanes in (None, 8, 16)
    assert card.source.strip()


@pytest.mark.parametrize("card", known_cards(), ids=lambda card: card.name)
def test_a_narrower_type_is_twice_as_fast_where_the_hardware_has_it(card: Card):
    if card.fp8_dense_tflops is not None:
        assert card.generation in WITH_FP8 and card.bf16_dense_tflops is not None
        assert card.fp8_dense_tflops / card.bf16_dense_tflops == pytest.approx(2, rel=0.03)
    if card.int8_dense_tops is not None and card.bf16_dense_tflops is not None:
        # GeForce's int8 is not halved as its fp16 is, B300 has next to none, CDNA2 no faster one.
        assert 0.06 <= card.int8_dense_tops / card.bf16_dense_tflops <= 4.1


def test_usable_memory_is_measured_or_near_to_what_is_measured():
    measured = [card for card in known_cards() if card.usable_memory_mib and card.memory_mib]
    assert len(measured) >= 20
    for card in measured:
        assert card.memory_mib and card.usable_memory_mib
        assert usable_memory_mib(card.memory_mib, card) == card.usable_memory_mib
        assert 0.97 * card.memory_mib < card.usable_memory_mib <= card.memory_mib
        by_rule = usable_memory_mib(
            card.memory_mib, card.model_copy(update={"usable_memory_mib": None})
        )
        assert by_rule == pytest.approx(card.usable_memory_mib, rel=0.006)


def test_usable_memory_of_an_unknown_card_and_of_another_memory():
    assert usable_memory_mib(98304) == pytest.approx(98304 - 600, abs=10)
    a6000 = find_card("NVIDIA RTX A6000")
    # 46068 is printed with ECC on; torch then gives 44.55 GiB.
    assert usable_memory_mib(46068, a6000) == pytest.approx(44.55 * 1024, rel=0.002)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"compute_capability": None}, "compute_capability is NVIDIA's"),
        ({"gfx": "gfx942"}, "gfx is AMD's"),
        ({"memory_mib": None}, "memory_mib is missing"),
        ({"memory_mib": "46068"}, "valid integer"),
        ({"tflops": 362}, "Extra inputs"),
    ],
)
def test_a_row_that_is_not_whole_is_refused(change: dict, message: str):
    l40s = {
        "name": "NVIDIA L40S",
        "vendor": "nvidia",
        "memory_mib": 46068,
        "generation": "Ada",
        "compute_capability": 8.9,
        "source": "data sheet",
    }
    assert Card.model_validate(l40s).name == "NVIDIA L40S"
    with pytest.raises(ValidationError, match=message):
        Card.model_validate(l40s | change)


@pytest.mark.parametrize(
    ("name", "memory_mib"),
    [
        ("NVIDIA L40S", 46068),
        ("NVIDIA GeForce RTX 4090", 24564),
        ("NVIDIA A10G", 23028),
        ("NVIDIA GeForce RTX 3090", 24576),
        ("NVIDIA GeForce RTX 5080", 16303),
        ("NVIDIA GeForce RTX 5090", 32607),
        ("NVIDIA H100 80GB HBM3", 81559),
        ("NVIDIA H200", 143771),
        ("NVIDIA A100-SXM4-80GB", 81920),
        ("NVIDIA L4", 23034),
        ("Tesla T4", 15360),
    ],
)
def test_memory_is_what_nvidia_smi_reports(name: str, memory_mib: int):
    card = find_card(name)
    assert card is not None and card.memory_mib == memory_mib


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("Tesla P100-PCIE-16GB", 6.0),
        ("Tesla V100-SXM2-32GB", 7.0),
        ("Tesla T4", 7.5),
        ("NVIDIA GeForce RTX 2080 Ti", 7.5),
        ("NVIDIA A100-SXM4-80GB", 8.0),
        ("NVIDIA A30", 8.0),
        ("NVIDIA A10G", 8.6),
        ("NVIDIA A40", 8.6),
        ("NVIDIA RTX A6000", 8.6),
        ("NVIDIA GeForce RTX 3090", 8.6),
        ("NVIDIA L4", 8.9),
        ("NVIDIA L40S", 8.9),
        ("NVIDIA RTX 6000 Ada Generation", 8.9),
        ("NVIDIA GeForce RTX 4090", 8.9),
        ("NVIDIA H20", 9.0),
        ("NVIDIA H200", 9.0),
        ("NVIDIA GH200 480GB", 9.0),
        ("NVIDIA B200", 10.0),
        ("NVIDIA GB300", 10.3),
        ("NVIDIA GeForce RTX 5090", 12.0),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", 12.0),
    ],
)
def test_compute_capability(name: str, capability: float):
    card = find_card(name)
    assert card is not None and card.compute_capability == capability


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("L40S", "NVIDIA L40S"),
        ("rtx 4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("RTX A6000", "NVIDIA RTX A6000"),
        ("T4", "Tesla T4"),
        ("H200", "NVIDIA H200"),
    ],
)
def test_short_names_find_the_full_one(short: str, name: str):
    card = find_card(short)
    assert card is not None and card.name == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("RTX4090", "NVIDIA GeForce RTX 4090"),
        ("RTX 4090D", "NVIDIA GeForce RTX 4090 D"),
        ("RTX 2080Ti", "NVIDIA GeForce RTX 2080 Ti"),
        ("nvidia-geforce-rtx-2080-super", "NVIDIA GeForce RTX 2080 SUPER"),
        ("RTX 3090 24G", "NVIDIA GeForce RTX 3090"),
        ("NVIDIA RTX 5080 16GB", "NVIDIA GeForce RTX 5080"),
        ("RTX 3080 12 GB", "NVIDIA GeForce RTX 3080 12GB"),
        ("L40s", "NVIDIA L40S"),
        ("L40S 48GB", "NVIDIA L40S"),
        ("Tesla A100-SXM4-40GB", "NVIDIA A100-SXM4-40GB"),
        ("A100-80GB", "NVIDIA A100-SXM4-80GB"),
        ("A100 40GB", "NVIDIA A100-SXM4-40GB"),
        ("A100 PCIe 80 GB", "NVIDIA A100 80GB PCIe"),
        ("A800-SXM4-80GB", "NVIDIA A800-SXM4-80GB"),
        ("Tesla-V100 32GB", "Tesla V100-SXM2-32GB"),
        ("V100S", "Tesla V100S-PCIE-32GB"),
        ("H100 80G", "NVIDIA H100 80GB HBM3"),
        ("NVIDIA H100 80GB", "NVIDIA H100 80GB HBM3"),
        ("H100 SXM", "NVIDIA H100 80GB HBM3"),
        ("H100 96GB", "NVIDIA H100 SXM5 96GB"),
        ("H100 94GB", "NVIDIA H100 NVL"),
        ("H800", "NVIDIA H800"),
        ("H20 (95 GiB)", "NVIDIA H20"),
        ("NVIDIA H20-3e (141GB)", "NVIDIA H20-3e"),
        ("H200 (p5en.48xlarge)", "NVIDIA H200"),
        ("Azure Standard_NC80adis_H100_v5 (H100 NVL)", "NVIDIA H100 NVL"),
        ("GH100 [H100 PCIe]", "NVIDIA H100 PCIe"),
        ("B200 192GB", "NVIDIA B200"),
        ("B300", "NVIDIA B300 SXM6 AC"),
        ("RTX 6000 Ada", "NVIDIA RTX 6000 Ada Generation"),
        ("RTX PRO 6000 Max-Q", "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition"),
        ("MI300X (gfx942)", "AMD Instinct MI300X"),
        ("MI308", "AMD Instinct MI308X"),
        ("Arcturus GL-XL [Instinct MI100]", "AMD Instinct MI100"),
        ("Radeon RX 7900 XTX", "AMD Radeon RX 7900 XTX"),
        ("AMD Radeon(TM) PRO W7900", "AMD Radeon PRO W7900"),
    ],
)
def test_names_as_people_write_them(text: str, name: str):
    card = find_card(text)
    assert card is not None and card.name == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "NVIDIA",
        "GPU",
        "H100",
        "NVIDIA A100",
        "A800",
        "Tesla-V100",
        "RTX 3080",
        "RTX 4000",
        "RTX 6000",
        "RTX PRO 6000",
        "RTX PRO 6000 Blackwell 96GB",
        "RTX 4090 48GB",
        "RTX 2080 Ti 22GB",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA GeForce RTX 4090 (Laptop)",
        "AD103M / GN21-X11 [GeForce RTX 4090 Laptop GPU]",
        "GB203M / GN22 [GeForce RTX 5090 Max-Q / Mobile]",
        "NVIDIA RTX A5000 Mobile",
        "NVIDIA H100L-2-24C",
        "GRID A100-40C",
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb",
        "NVIDIA H100 80GB HBM3 (MIG 1g.10gb)",
        "TU102GL [Quadro RTX 6000/8000]",
        "GA107GL [A2 / A16]",
        "L40S; reboot",
        "2x L40S",
        "L40S (L40)",
        "RTX 5070 Ti 16GB + RTX 5090 D 32GB",
        "T4G",
        "A100X",
        "A 1 0",
        "CF-NG-HZZ1-O",
        "NVIDIA L20Y",
        "NVIDIA M403",
        "AMD Radeon Graphics",
    ],
)
def test_ambiguous_and_unknown_names_find_nothing(text: str):
    assert find_card(text) is None


@pytest.mark.parametrize(
    ("text", "memory_mib", "name"),
    [
        ("A100", 40960, "NVIDIA A100-SXM4-40GB"),
        ("A100", 40536, "NVIDIA A100-SXM4-40GB"),
        ("A100 PCIe", 81920, "NVIDIA A100 80GB PCIe"),
        ("NVIDIA H100", 65247, "NVIDIA H100 SXM5 64GB"),
        ("NVIDIA H100", 81559, "NVIDIA H100 80GB HBM3"),
        ("H100", 95830, "NVIDIA H100 NVL"),
        ("NVIDIA GeForce RTX 3080", 10240, "NVIDIA GeForce RTX 3080 10GB"),
        ("NVIDIA GeForce RTX 4060 Ti", 16380, "NVIDIA GeForce RTX 4060 Ti 16GB"),
        ("RTX 6000", 24576, "Quadro RTX 6000"),
        ("RTX 6000", 49140, "NVIDIA RTX 6000 Ada Generation"),
        ("GH200", 146831, "NVIDIA GH200 144G HBM3e"),
        # One card alone has the name: ECC and rebuilt memory do not make it another.
        ("NVIDIA RTX A6000", 46068, "NVIDIA RTX A6000"),
        ("NVIDIA GeForce RTX 2080 Ti", 22528, "NVIDIA GeForce RTX 2080 Ti"),
        ("A100", 24576, None),
        ("A100", 45000, None),
        ("H100 80GB", 65247, None),
        ("RTX PRO 6000", 97887, None),
    ],
)
def test_memory_tells_cards_of_one_name_apart(text: str, memory_mib: int, name: str | None):
    card = find_card(text, memory_mib)
    assert (card and card.name) == name


def test_every_gpu_of_the_real_outputs_is_found():
    machines = [json.loads(line)["machine"] for line in INDEX.read_text().splitlines()]
    named = {
        name
        for machine in machines
        for name in re.findall(r"[0-9]+x ((?:NVIDIA|Tesla) [^;+(,]+?)(?= *[;+(]|$)", machine)
    }
    assert len(named) > 40
    unknown = {name for name in named if find_card(name) is None}
    # Names that several cards print, and three of Chinese clouds whose cards nobody says.
    several = {"NVIDIA H100", "NVIDIA RTX PRO 6000 Blackwell"}
    assert unknown == several | {"NVIDIA L20Y", "NVIDIA L20Z", "NVIDIA M403"}


@given(st.text(max_size=40), st.none() | st.integers(1, 300_000))
def test_any_text_is_read(text: str, memory_mib: int | None):
    assert find_card(text, memory_mib) is None or name_words(text)
    close_names(text)


_PIECES = sorted(
    {word for card in known_cards() for word in name_words(card.name)} | {" ", "-", "(", ")"}
)


@given(st.lists(st.sampled_from(_PIECES), max_size=6).map(" ".join))
def test_a_card_is_found_only_where_its_number_is_written(text: str):
    card = find_card(text)
    if card is not None:
        # Some have none: TITAN RTX.
        first = re.findall("[0-9]+", card.name)[:1]
        assert set(first) <= set(re.findall("[0-9]+", text))


def test_a_pci_id_may_stand_for_several_cards():
    def names(device_id: str) -> list[str]:
        return [card.name for card in cards_by_pci_id(device_id)]

    assert names("10de:2330") == ["NVIDIA H100 80GB HBM3"]
    assert names("10DE:26B9") == ["NVIDIA L40S"]
    assert names("10de:25b6") == ["NVIDIA A16", "NVIDIA A2"]
    assert names("1002:744c") == ["AMD Radeon RX 7900 XT", "AMD Radeon RX 7900 XTX"]
    assert names("10de:ffff") == []


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("NVIDA L40S", "NVIDIA L40S"),
        ("NVIDIA L40X", "NVIDIA L40"),
        ("RTX 4900", "NVIDIA GeForce RTX 4090"),
        ("RTX 3080", "NVIDIA GeForce RTX 3080 10GB"),
        ("Nvidia Gforce RTX 5090", "NVIDIA GeForce RTX 5090"),
        ("MI300", "AMD Instinct MI300A"),
    ],
)
def test_close_names_begin_with_the_one_that_was_meant(text: str, first: str):
    assert close_names(text)[0] == first


def test_close_names_hold_what_the_name_is_part_of():
    assert close_names("H100") == [
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 NVL",
        "NVIDIA H100 PCIe",
        "NVIDIA H100 SXM5 64GB",
        "NVIDIA H100 SXM5 96GB",
    ]
    assert {"NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"} <= set(close_names("A100"))
    assert close_names("zzzz") == []


@pytest.mark.parametrize(
    ("name", "usable_gib"), [("NVIDIA H200", 139.81), ("NVIDIA B200", 178.35), ("T4", 14.56)]
)
def test_usable_memory_is_what_torch_reports(name: str, usable_gib: float):
    card = find_card(name)
    assert card is not None and card.memory_mib is not None
    assert usable_memory_mib(card.memory_mib, card) / 1024 == pytest.approx(usable_gib, abs=0.01)


# Dense rates that are known well and often given wrong: with sparsity, or for GeForce with fp16
# accumulation (twice as much each).
@pytest.mark.parametrize(
    ("name", "bf16", "fp8"),
    [
        ("NVIDIA H100 80GB HBM3", 989, 1979),
        ("NVIDIA H100 NVL", 835.5, 1670.5),
        ("NVIDIA A100-SXM4-80GB", 312, None),
        ("NVIDIA L40S", 362, 733),
        ("NVIDIA L4", 121, 242.5),
        ("NVIDIA A10G", 70, None),
        ("NVIDIA GeForce RTX 3090", 71, None),
        ("NVIDIA GeForce RTX 4090", 165.2, 330.3),
        ("NVIDIA GeForce RTX 5090", 209.5, 419),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8, 1007.6),
        ("NVIDIA B200", 2250, 4500),
        ("AMD Instinct MI300X", 1307.4, 2614.9),
    ],
)
def test_rates_are_dense_with_fp32_accumulation(name: str, bf16: float, fp8: float | None):
    card = find_card(name)
    assert card is not None
    assert card.bf16_dense_tflops == pytest.approx(bf16, rel=0.001)
    assert (card.fp8_dense_tflops or 0) == pytest.approx(fp8 or 0, rel=0.001)
