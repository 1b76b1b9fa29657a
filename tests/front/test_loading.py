"""While a command loads torch the collector waits, once; afterwards it works as before."""

from __future__ import annotations

import subprocess
import sys

REPORT = """
import gc, sys
from fstsim.front.loading import loading
passes = []
gc.callbacks.append(lambda phase, _: passes.append(phase))
with loading():
    import torch
    assert not gc.isenabled() and not passes
assert gc.isenabled() and gc.get_freeze_count() > 100_000
frozen = gc.get_freeze_count()
class Node: pass
def ring():
    a, b = Node(), Node()
    a.other, b.other = b, a
ring()
assert gc.collect() >= 2, "what is made afterwards is collected"
with loading():
    assert gc.isenabled(), "torch is there: nothing to wait for"
assert gc.get_freeze_count() == frozen
"""
FAILED = """
import gc
from fstsim.front.loading import loading
try:
    with loading():
        import no_such_module
except ModuleNotFoundError:
    pass
assert gc.isenabled()
gc.disable()
with loading():
    pass
assert not gc.isenabled(), "whoever does without a collector keeps to it"
"""


def test_the_collector_waits_for_torch_and_then_works() -> None:
    for program in (REPORT, FAILED):
        subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
