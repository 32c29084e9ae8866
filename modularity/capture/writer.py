"""One background thread between capture and a sink, with a bounded queue: a slow sink slows capture down."""

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from modularity.errors import InputError

Item = TypeVar("Item")


class BackgroundWriter(Generic[Item]):
    """Call `write(item)` for each item that is put, in order, in one thread of its own.

    At most `max_pending` items are waiting or being written; `put` blocks until there is room. With `max_pending=0`
    there is no thread and `put` writes. An exception of `write` is raised again, as it is, at the next `put` or at
    `close`; later items are then refused, and a note on the exception says how many accepted items were not written.
    Used as a context manager it closes itself: all that was put is written, also when the body raises.

    Parameters
    ----------
    write : called with each item, in the order of `put`
    max_pending : bound on the items accepted but not yet written; 0 = each is written before `put` returns

    Raises
    ------
    InputError
        `max_pending` is negative.
    """

    def __init__(self, write: Callable[[Item], None], *, max_pending: int = 2) -> None:
        if max_pending < 0:
            raise InputError(f"max_pending={max_pending}: expected 0 (write at once) or the items that may wait")
        self._write = write
        self._max_pending = max_pending
        self._pending: deque[Item] = deque()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._n_written = 0
        # A daemon, so that a sink which hangs cannot keep the interpreter from exiting; `close` joins it.
        self._thread = threading.Thread(target=self._run, name="background-writer", daemon=True)
        if max_pending:
            self._thread.start()

    @property
    def n_written(self) -> int:
        """Items for which `write` has returned."""
        return self._n_written

    def put(self, item: Item) -> None:
        """Hand over one item; blocks while `max_pending` items are pending.

        Raises
        ------
        BaseException
            Whatever `write` raised for an earlier item.
        ValueError
            The writer is closed.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._error or self._closed or len(self._pending) < max(1, self._max_pending)
            )
            self._raise_error()
            if self._closed:
                raise ValueError("put on a closed BackgroundWriter; make a new one")
            if self._max_pending:
                self._pending.append(item)
                self._changed.notify_all()
                return
        self._write_now(item)

    def close(self) -> None:
        """Wait until everything is written and end the thread; raises what `write` raised. Closing twice is allowed."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._max_pending:
            self._thread.join()
        self._raise_error()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except BaseException as own:
            if error is None or error is own:
                raise
            error.add_note(f"The background writer failed as well: {type(own).__name__}: {own}")

    def _write_now(self, item: Item) -> None:
        try:
            self._write(item)
        except BaseException as error:
            self._error = error
            raise
        self._n_written += 1

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._pending or self._closed)
                if not self._pending:
                    return
                item = self._pending[0]
            try:
                self._write(item)
            except BaseException as error:
                self._fail(error)
                return
            del item
            with self._changed:
                self._pending.popleft()
                self._n_written += 1
                self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            n_behind = len(self._pending) - 1
            if n_behind:
                error.add_note(f"{n_behind} items handed to the background writer after this one were not written.")
            self._pending.clear()
            self._error = error
            self._changed.notify_all()
