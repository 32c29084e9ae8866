"""Fixtures of this room."""

from collections.abc import Iterator

import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Graphs of some dozen nodes gain nothing from threads, and lose much where other processes want the cores."""
    with threadpool_limits(1):
        yield
