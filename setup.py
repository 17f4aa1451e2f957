"""What pyproject.toml cannot say: a 32-bit ARM system depends on other wheels, and gets a wheel of ours that says so.

LiteRT has no wheels for such systems; the last tflite-runtime has, and was built against numpy 1. No marker of a dependency can
tell them: on a 64-bit kernel, which a Pi 4 starts by default, a 32-bit Raspberry Pi OS calls its machine aarch64. The tag of a
wheel can, and so can the Python that builds one. Setting CHAREDGE_WHEEL to the tag builds it anywhere: `make wheels`.
"""

import os
import platform
import sys

from setuptools import setup

ARMV7L = "manylinux_2_34_armv7l"  # tflite-runtime's own tag
TYPER = "typer>=0.21,<0.29"  # 0.29 brings pydantic: 10 MB of memory and 70 ms at every start

here = ARMV7L if sys.maxsize < 2**32 and platform.machine() in ("armv7l", "armv8l", "aarch64") else "any"
wheel = os.environ.get("CHAREDGE_WHEEL", here)
if wheel not in ("any", ARMV7L):
    sys.exit(f"CHAREDGE_WHEEL={wheel} is unknown: choose any or {ARMV7L}.")
if wheel == ARMV7L:
    setup(
        install_requires=[TYPER, "tflite-runtime==2.14.0", "numpy>=1.23,<2"],
        options={"bdist_wheel": {"plat_name": ARMV7L}},
    )
else:
    setup(install_requires=[TYPER, "ai-edge-litert>=2.3,<3", "numpy>=1.23"])
