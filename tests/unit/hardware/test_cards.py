from collections import Counter

import pytest

from roles.hardware.cards import cards, close_names, find_card
from roles.hardware.settings import check_card_name


def test_every_card_is_named_once_even_without_its_prefix():
    found = [find_card(card.name) for card in cards()]
    assert found == list(cards())


def test_every_name_may_be_declared_and_every_source_is_told():
    assert all(check_card_name(card.name) == card.name and card.source for card in cards())


def test_no_pci_device_id_stands_for_two_cards():
    counts = Counter(card.pci_device_id for card in cards() if card.pci_device_id)
    assert max(counts.values()) == 1


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


@pytest.mark.parametrize("name", ["H100", "A100", "RTX PRO 6000", "", "NVIDIA", "L40S; reboot"])
def test_ambiguous_and_unknown_names_find_nothing(name: str):
    assert find_card(name) is None


def test_close_names_hold_what_the_name_is_part_of():
    assert set(close_names("H100")) == {
        "NVIDIA H100 80GB HBM3",
        "NVIDIA H100 NVL",
        "NVIDIA H100 PCIe",
    }
    assert close_names("NVIDIA L40X")[0] == "NVIDIA L40"
    assert close_names("zzzz") == []
