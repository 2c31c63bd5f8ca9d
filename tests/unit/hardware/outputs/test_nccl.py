from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roles.hardware.outputs.nccl import parse_nccl
from roles.hardware.outputs.text import OutputError

OUTPUTS = Path(__file__).parents[3] / "data" / "gpu-outputs" / "nccl"

# file: transports, NVLS, version, ranks; counted in the files with grep and read by hand.
REAL = {
    "2node-16gpu-net-ib-gdrdma_tpgds": (("NET/IB/GDRDMA", "P2P/IPC"), False, None, None),
    "a100-2node-socket-ipc-read_nccl-952": (("NET/Socket", "P2P/IPC/read"), False, None, None),
    "h100-3node-nvls-heads_nccl-1453": ((), True, None, 24),
    "h800-p2p-direct-pointer-0-nvls_nccl-892": (("P2P/direct pointer",), False, None, None),
    "ibext-gdrdma-one-line_deepep-106": (("NET/IBext/GDRDMA",), False, None, None),
    "nccl26-direct-shared-memory_tesla-105": (("NET/Socket", "P2P/IPC", "SHM"), False, None, None),
    "sglang-5013": ((), False, None, None),
    "sglang-7450": ((), False, None, None),
    "socket-shared-warn_vm": (("NET/Socket/Shared",), False, None, None),
    "timez-zx_nccl": (("P2P/direct pointer/read",), False, "2.27.7+cuda13.0", 2),
    "timez-zx_nccl-fault": (("P2P/direct pointer/read",), False, "2.27.7+cuda13.0", 2),
    "vllm-10150": (("SHM/direct/direct",), False, None, 2),
    "vllm-4383": (("SHM/direct/direct",), False, None, 2),
    "vllm-9469": (("P2P/CUMEM",), False, "2.20.5+cuda12.4", 2),
}


@pytest.mark.parametrize("name", REAL)
def test_real_logs(name: str):
    log = parse_nccl((OUTPUTS / f"{name}.txt").read_text("utf-8"))
    assert (log.transports, log.nvls, log.version, log.ranks) == REAL[name]


def test_warnings_are_read_once():
    text = (OUTPUTS / "socket-shared-warn_vm.txt").read_text("utf-8")
    assert parse_nccl(text + text).warnings == (
        "ncclSocketInit: connecting to address  with family 1 is neither AF_INET(2) nor "
        "AF_INET6(10)",
    )


HOST = "h:1:2 [0] NCCL INFO "


@pytest.mark.parametrize(
    ("line", "transports"),
    [
        ("Channel 00/0 : 0[0] -> 1[1] via P2P/CUMEM/read", ("P2P/CUMEM/read",)),
        ("Channel 00/0 : 0[0] -> 1[1] via P2P/indirect/5[5]/read", ("P2P/indirect/read",)),
        ("Channel 01/0 : 1[1] -> 8[0] [send] via NET/IB/3(8)/GDRDMA", ("NET/IB/GDRDMA",)),
        (
            "Channel 01/0 : 1[1] -> 8[0] [send] via NET/AWS Libfabric/2/GDRDMA/Shared",
            ("NET/AWS Libfabric/GDRDMA/Shared",),
        ),
        ("Ring 00 : 0[0] -> 1[1] via direct shared memory", ("SHM",)),
        ("CollNet 00/0 : 3 [receive] via COLLNET/SHARP/0/GDRDMA", ("COLLNET/SHARP/GDRDMA",)),
        ("Channel 32 : 1[c3] -> 0[3] via SHM/direct/CE comm 0x5 nRanks 02", ("SHM/direct/CE",)),
        ("Using network IB via Socket", ()),
        ("Connected all rings", ()),
        # Cut inside a word: of P2P/CUMEM or P2P/IPC one cannot say.
        ("Channel 00/0 : 0[0] -> 1[1] via P2P/CUM", ()),
        ("Channel 00/0 : 0[0] -> 1[1] [send] via NET/IB", ()),  # of NET/IBext/0?
    ],
)  # fmt: skip
def test_wordings_of_a_channel(line: str, transports: tuple[str, ...]):
    assert parse_nccl(HOST + line).transports == transports


@pytest.mark.parametrize(
    ("line", "nvls"),
    [
        ("24 coll channels, 24 collnet channels, 16 nvls channels, 32 p2p channels", True),
        ("24 coll channels, 0 collnet channels, 0 nvls channels, 32 p2p channels", False),
        ("NVLS multicast support is available on dev 0", True),
        ("NVLS multicast support is not available on dev 0", False),
        ("NCCL_ALGO set by environment to Tree,NVLS", False),
    ],
)
def test_nvls(line: str, nvls: bool):
    assert parse_nccl(HOST + line).nvls is nvls


@pytest.mark.parametrize("text", ["", "INFO using the nccl backend\n", "no channel via P2P/IPC"])
def test_text_without_nccl_is_refused(text: str):
    with pytest.raises(OutputError, match="NCCL_DEBUG=INFO"):
        parse_nccl(text)


@given(st.data())
def test_a_cut_log_shows_no_transport_that_the_whole_one_does_not(data: st.DataObject):
    text = (OUTPUTS / "2node-16gpu-net-ib-gdrdma_tpgds.txt").read_text("utf-8")
    try:
        log = parse_nccl(text[: data.draw(st.integers(0, len(text)))])
    except OutputError:
        return
    # Of the last path the end may be missing.
    assert set(log.transports) <= {"NET/IB/GDRDMA", "NET/IB", "NET", "P2P/IPC", "P2P"}
