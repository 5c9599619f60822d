"""What this machine's processor multiplies natively: the instructions that make reduced precision fast."""

import functools
import platform
from pathlib import Path

# By Linux' names. x86: AVX-512, AMX; ARM: NEON, SVE. A processor without them emulates such products, slowly.
INSTRUCTIONS: dict[str, tuple[str, ...]] = {
    "bfloat16": ("amx_bf16", "avx512_bf16", "sve_bf16", "bf16"),
    "int8": ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp"),
}
CPUINFO = Path("/proc/cpuinfo")


@functools.cache
def features() -> frozenset[str]:
    """The instruction sets of the processor, by Linux' names; none where the system does not tell."""
    if platform.system() != "Linux" or not CPUINFO.exists():
        return frozenset()
    for line in CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, ARM
            return frozenset(value.split())
    return frozenset()


def instructions(precision: str) -> tuple[str, ...]:
    """Those of the processor for products in "bfloat16" or "int8", the fastest first."""
    return tuple(name for name in INSTRUCTIONS[precision] if name in features())


def has_products(precision: str) -> bool:
    """Whether the processor has any."""
    return bool(instructions(precision))
