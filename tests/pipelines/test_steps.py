"""Steps: how a run that cannot even note its end tells what ended it."""

from typing import Any

import pytest

from modularity.errors import StoreError, WorkError
from modularity.pipelines.steps import run_steps


class FullRun:
    """Stands for a run on a full disk."""

    def update(self, **changes: Any) -> None:
        raise StoreError("no room")


@pytest.mark.parametrize("cause", [WorkError("3 of 3 work items failed"), KeyboardInterrupt("by Ctrl-C")])
def test_the_cause_is_told_where_the_end_cannot_be_noted(cause: BaseException) -> None:
    def allocate() -> None:
        raise cause

    run: Any = FullRun()
    executor: Any = None
    with pytest.raises(type(cause)) as caught:
        run_steps(run, executor, [], allocate=allocate)
    assert caught.value is cause
