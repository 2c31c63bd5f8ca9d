"""Stand-ins for nvidia-smi, amd-smi and systemctl, as scripts on PATH."""

import os
import sys
from pathlib import Path

NVIDIA_SMI = """
import sys
query = sys.argv[1]
if query.startswith("--query-compute-apps"):
    print("GPU-a, 4242, VLLM::Worker_TP0, 20000\\nGPU-b, 4243, VLLM::Worker_TP1, 20000")
elif "uuid" in query:
    print("0, GPU-a, 21000, 0\\n1, GPU-b, 21000, 0")
else:
    print("0, 93\\n1, 97")
"""
NVIDIA_SMI_HIDDEN = NVIDIA_SMI.replace('print("GPU-a, 4242', 'if 0: print("GPU-a, 4242')
"""The same in a container, which does not see the processes on its GPUs."""
AMD_SMI = """
import json, sys

def amount(value, unit):
    return {"value": value, "unit": unit}

def process(number):
    memory = {"vram_mem": amount(20000 * 2**20, "B")}
    return {"process_info": {"name": "VLLM::Worker", "pid": 4242 + number, "memory_usage": memory}}

if sys.argv[1] == "process":
    print(json.dumps([{"gpu": i, "process_list": [process(i)]} for i in range(2)], indent=4))
else:
    usage = [{"gfx_activity": amount(93 + i, "%")} for i in range(2)]
    memory = {"total_vram": amount(196592, "MB"), "used_vram": amount(21000, "MB")}
    told = [{"gpu": i, "usage": usage[i], "mem_usage": memory} for i in range(2)]
    print(json.dumps({"gpu_data": told}, indent=4))
"""
SYSTEMCTL = """
print("ActiveState=active\\nMainPID=4200\\nNRestarts=0")
"""


def programs(folder: Path, **texts: str) -> str:
    """A PATH on which the given Python texts are programs, before all else."""
    bin_folder = folder / "bin"
    bin_folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        path = bin_folder / name
        path.write_text(f"#!{sys.executable}\n{text}")
        path.chmod(0o755)
    return f"{bin_folder}:{os.environ['PATH']}"


def processes(folder: Path, **cgroups: str) -> Path:
    """A /proc in which each process (`p4242`) has that control group."""
    for name, text in cgroups.items():
        path = folder / "proc" / name.removeprefix("p")
        path.mkdir(parents=True)
        (path / "cgroup").write_text(text)
    return folder / "proc"
