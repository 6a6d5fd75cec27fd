"""Whether a learner has written anything yet. The grader's reader imports this file, so it must not load torch."""

import dis
from typing import Any


def is_stub(attempt: Any) -> bool:
    """Whether the function's body is only `...`, `pass`, a docstring, or `return ...`."""
    code = getattr(attempt, "__code__", None)
    if code is None:
        return False
    idle = ("RESUME", "NOP", "COPY_FREE_VARS", "MAKE_CELL")
    steps = [step for step in dis.get_instructions(code) if step.opname not in idle]
    values = [step.argval for step in steps if step.opname in ("LOAD_CONST", "RETURN_CONST")]
    return len(steps) <= 2 and len(values) == 1 and values[0] in (None, ...)
