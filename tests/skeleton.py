"""The method that CONTRIBUTING.md offers to copy, so that it can be tested."""

from __future__ import annotations

import functools
import re
import sys
import types

from tools.environment import ROOT


@functools.cache
def skeleton_method() -> type:
    """Return the class LinearInverse, made from the page's Python block."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    module = types.ModuleType("skeleton_in_contributing")
    sys.modules[module.__name__] = module  # where a dataclass looks for its types
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)
    return module.LinearInverse
