"""Ask an interpreter of the remote host what it is and what it has installed, without importing any of that.

`LOOK` is the program that the interpreter runs, whatever its version; what it prints may come behind other text, of
`--init` or of a wrapper.
"""

from __future__ import annotations

import json
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PACKAGES = ("ipykernel", "torch", "jax")
LOOK = f"""
import json, os, platform, sys, sysconfig
found = {{"version": platform.python_version(), "prefix": sys.prefix, "own": sys.prefix != sys.base_prefix}}
found["managed"] = os.path.exists(os.path.join(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED"))
try:
    from importlib.metadata import version
    for name in {PACKAGES}:
        try:
            found[name] = version(name)
        except Exception:
            pass
except ImportError:
    pass
print("remote_kernel", json.dumps(found))
"""


def read_answer(output: str) -> dict[str, Any] | None:
    """Return what an interpreter says of itself; None where that is not what `LOOK` prints."""
    found = re.search(r"^remote_kernel (\{.*\})", output, re.MULTILINE)
    try:
        answer = json.loads(found[1] if found else "")
        texts = [answer["version"], answer["prefix"], *(answer.get(name, "") for name in PACKAGES)]
        known = {"own": answer["own"] is True, "managed": answer["managed"] is True}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_good = all(isinstance(text, str) for text in texts) and re.match(r"\d+\.\d+\.", texts[0])
    return dict(answer, **known) if is_good else None


def is_the_systems(answer: dict[str, Any]) -> bool:
    """True if the interpreter's packages belong to the system's package manager (PEP 668)."""
    return not answer["own"] and (answer["managed"] or answer["prefix"] in ("/usr", "/usr/local"))
