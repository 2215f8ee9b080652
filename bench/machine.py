"""What the figures were measured on."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "numpy", "onnxruntime", "tritonclient", "grpcio", "fastapi", "uvicorn", "aiohttp")
TRITON = "2.51.0"  # what the wheel of workloads/docker/triton/server.txt carries


def describe() -> dict[str, object]:
    """The machine and the versions, without anything that names it."""
    return {
        "cpu": _cpu(),
        "instruction_sets": _instruction_sets(),
        "cores": os.cpu_count() or 1,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": f"Linux {re.match(r'[0-9.]*[0-9]', platform.release())[0]}",  # type: ignore[index]  # it begins so
        "glibc": platform.libc_ver()[1],
        "python": platform.python_version(),
        "versions": {"triton": TRITON, **{name: version for name in PACKAGES if (version := _version(name))}},
        "load_average_before": os.getloadavg()[0],
    }


def stolen() -> float:
    """Seconds that the hypervisor gave to others so far, of all cores."""
    fields = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = dict(re.split(r"\s*:\s*", line, maxsplit=1) for line in lines if ":" in line)
    return f"{fields.get('model name', 'unknown')}, family {fields.get('cpu family')}, model {fields.get('model')}"


def _instruction_sets() -> list[str]:
    """Those that matrix products make use of."""
    flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    return [name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8") if name in flags]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
