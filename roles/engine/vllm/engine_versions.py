"""The differences between vLLM's versions in memory profile and defaults.

Sources: vLLM 0.33's code for the current rules; logs of older versions
(tests/data/vllm-startup-memory.jsonl), with several models for each rule.
"""

import re
from dataclasses import dataclass

from roles.engine.needs import Version
from roles.models import Mxfp4Padding

LATEST: Version = (0, 33, 0)
V1: Version = (0, 8)

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:\.(\d+))?")
_SMALL_BATCH = re.compile(r"a100|\bgb10\b", re.IGNORECASE)
_FIRST_LARGE = re.compile(r"h100|h200", re.IGNORECASE)
# From this version on a default step is never larger than all requests at their longest.
LIMITED_BY_REQUESTS: Version = (0, 9)
_GIB_MIB = 1024


@dataclass(frozen=True)
class Rules:
    """How one version measures memory.

    `sampler_bytes` are the sampler's temporary bytes per logit, `sampler_kept_bytes` those that it
    keeps. `counts_all_memory`: all used memory of the GPU counts against the budget, even of other
    processes. `checks_free_memory`: the whole budget must be free at start. `subtracts_graphs`:
    CUDA graphs are part of the budget. `spare_block`: a request must leave one block free.
    `stages_ignored`: one request of the whole model must fit the smallest stage (a bug of those
    versions). `latent_cache`: MLA caches its latent, not all heads.
    """

    version: Version
    utilization: float
    sampler_bytes: float
    sampler_kept_bytes: float
    counts_all_memory: bool
    checks_free_memory: bool
    subtracts_graphs: bool
    spare_block: bool
    stages_ignored: bool
    latent_cache: bool


def parse_version(text: str | None) -> Version:
    """The numbers of a version; the latest version for None and for text that names no release.

    Builds from a clone without tags are called 0.1.dev, which says nothing about their age.
    """
    match = _VERSION.match(text or "")
    if match is None or (text and ("0.1.dev" in text)):
        return LATEST
    return tuple(int(part or 0) for part in match.groups())


def rules(version: Version) -> Rules:
    """The rules of a version."""
    return Rules(
        version=version,
        utilization=0.92 if version >= (0, 21) else 0.9,
        # Sorting all logits took 38 bytes each; since 0.17 a kernel without sorting takes 15.
        sampler_bytes=15.0 if version >= (0, 17) else 38.3,
        # Counts of each request's tokens (int32) and a bit mask (`sample/penalties.py`).
        sampler_kept_bytes=4 + 1 / 8 if version >= (0, 21) else 0.0,
        counts_all_memory=version < (0, 6, 5) or V1 <= version < (0, 9, 1),
        checks_free_memory=version >= (0, 9, 1),
        subtracts_graphs=version >= (0, 21),
        spare_block=version >= (0, 21),
        stages_ignored=(0, 11, 1) <= version < (0, 16),
        latent_cache=version >= (0, 7),
    )


def batch_defaults(
    name: str,
    memory_mib: float,
    version: Version = LATEST,
    max_model_len: int = 0,
    *,
    offline: bool = False,
) -> tuple[int, int]:
    """vLLM's defaults for a GPU: (tokens per step, concurrent requests).

    `offline` is the Python class `LLM`, which takes larger steps than `vllm serve`. Before 0.8 a
    step took whole prompts: its tokens were the longest request, or 512 (2048 from 0.6.4) if
    requests were longer than 32768, which were processed in chunks. Sources: `engine/arg_utils.py`
    of several versions, pull requests 16158 (256 requests on most cards) and 17885 (A100).
    """
    if version < V1:
        cut = max_model_len > 32768
        whole = 512 if version < (0, 6, 4) else 2048
        return (whole if cut else max(max_model_len, 2048)), 256
    if memory_mib >= 160 * _GIB_MIB and version >= (0, 17) and not _SMALL_BATCH.search(name):
        return 16384, 1024
    if _is_large(name, memory_mib, version):
        return 16384 if offline else 8192, 1024
    # The first releases of V1 allowed 1024 requests on any GPU.
    return 8192 if offline else 2048, 1024 if version < (0, 8, 4) else 256


def _is_large(name: str, memory_mib: float, version: Version) -> bool:
    """Whether a GPU gets large steps: by name at first, then by memory, since 0.9 not an A100."""
    if version < (0, 8, 5):
        return bool(_FIRST_LARGE.search(name))
    small = version >= (0, 9) and bool(_SMALL_BATCH.search(name))
    return memory_mib >= 70 * _GIB_MIB and not small


def mxfp4_padding(version: Version, capability: float | None) -> Mxfp4Padding:
    """The layout of MXFP4 experts: on Hopper Triton's, which pads since torch 2.8.1.

    Before, its swizzled layout was off (`mxfp4_utils.py`), and starts logged the checkpoint's own
    size. From 0.19 on logs are as near to Marlin's layout, which is the larger one.
    """
    if capability is None or not 9 <= capability < 10 or version >= (0, 19):
        return "marlin"
    return "triton" if version >= (0, 11, 1) else "none"


def engine_memory_gib(version: Version, tensor: int, datacenter_links: bool) -> float:
    """GiB on one GPU that torch did not allocate and that count against the budget.

    Handles, workspaces of attention, and with tensor parallel the buffers of collectives (NCCL,
    custom all-reduce; since 0.17 FlashInfer's, if all GPUs have NVLink). Versions that count all
    memory include the CUDA context.
    """
    if version < (0, 6, 4):
        return 0.5 + 0.25 * tensor
    if version < (0, 6, 5):
        return 1.0 + 0.6 * tensor
    collectives = 0.0 if tensor == 1 else 0.2
    if tensor > 1 and datacenter_links:
        collectives = 0.5 if version < (0, 17) else 1.8 if version < (0, 21) else 1.1
    if V1 <= version < (0, 9, 1):
        return 0.6 + collectives
    return (0.1 if version < (0, 17) else 0.3) + collectives
