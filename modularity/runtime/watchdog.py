"""A limit on the time of one item, or of loading, in this process.

Nothing can stop a computation that hangs inside a library and let the process go on: a signal waits for the library to
return, and a thread cannot be killed. So the process ends, and says with what; what was recorded stays.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 1


@contextmanager
def ends_after(timeout_s: float | None, what: str, setting: str) -> Iterator[None]:
    """End this process when the block takes longer than `timeout_s` seconds; None: no limit.

    `what` takes so long, and `setting` of the config limits it, for the message.
    """
    if timeout_s is None:
        yield
        return
    timer = threading.Timer(timeout_s, _end, (timeout_s, what, setting))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end(timeout_s: float, what: str, setting: str) -> None:
    print(
        f"error: {what} took longer than {timeout_s:g} s ({setting}), and in process it cannot be stopped "
        "alone: the job ends here, what is recorded stays, and the same command goes on; where each thread is:",
        file=sys.stderr,
        flush=True,
    )
    faulthandler.dump_traceback(sys.__stderr__ or 2)
    os._exit(EXIT_CODE)
