"""From the device to the host while the model goes on computing: a ring of pinned buffers, a copy stream, events.

The order that makes it correct: the copy stream waits for the compute stream before it reads the values; the allocator
is told that the copy stream uses them (`record_stream`); the host waits for the event recorded after the copy before it
reads the buffer; a buffer is used again only after the host has read it. The host reads in one background thread; when
it cannot keep up, `submit` blocks and the model waits.
"""

from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import torch

from modularity.capture.writer import BackgroundWriter

Receive = Callable[[torch.Tensor], None]


class Event(Protocol):
    """Something that can be waited for."""

    def synchronize(self) -> None:
        """Block until the work before the event is done."""


class Copier(Protocol):
    """How bytes get from the device to host memory."""

    def allocate(self, n_bytes: int) -> torch.Tensor:
        """Host buffer, uint8 of shape (n_bytes,), that `start` can copy into."""

    def start(self, source: torch.Tensor, target: torch.Tensor) -> Event:
        """Begin to copy; `target` holds the values once the event has passed."""


class CudaCopier:
    """Copies on a stream of its own per CUDA device."""

    def __init__(self) -> None:
        self._streams: dict[torch.device, torch.cuda.Stream] = {}

    def allocate(self, n_bytes: int) -> torch.Tensor:
        """Page-locked memory: from pageable memory a copy would not be asynchronous."""
        return torch.empty(n_bytes, dtype=torch.uint8, pin_memory=True)

    def start(self, source: torch.Tensor, target: torch.Tensor) -> torch.cuda.Event:
        """Queue the copy behind what the current stream of the source's device has queued so far."""
        if source.device not in self._streams:
            self._streams[source.device] = torch.cuda.Stream(device=source.device)  # type: ignore[no-untyped-call]
        stream = self._streams[source.device]
        stream.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(stream):
            target.copy_(source, non_blocking=True)
        source.record_stream(stream)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(stream)
        return event


class _Pending(NamedTuple):
    event: Event
    values: torch.Tensor
    receive: Receive


class HostRing:
    """Context manager over a ring of host buffers: `submit` starts a copy, `receive` gets the values once they arrived.

    Parameters
    ----------
    copier : how to copy, `CudaCopier` on CUDA
    n_slots : buffers in the ring, at least 2; each grows to the largest tensor that it has carried
    """

    def __init__(self, copier: Copier, *, n_slots: int = 8) -> None:
        self._copier = copier
        self._slots: list[torch.Tensor | None] = [None] * n_slots
        self._n_submitted = 0
        self._writer: BackgroundWriter[_Pending] | None = None

    @property
    def nbytes(self) -> int:
        """Host memory held by the ring."""
        return sum(slot.numel() for slot in self._slots if slot is not None)

    def __enter__(self) -> Self:
        # One slot more than may be pending: when `put` of copy k - 1 has returned, copy k - n_slots was received.
        self._writer = BackgroundWriter(_receive, max_pending=len(self._slots) - 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._writer is not None
        writer, self._writer = self._writer, None
        writer.__exit__(kind, error, traceback)

    def submit(self, source: torch.Tensor, receive: Receive) -> None:
        """Start to copy `source`; later, in the ring's thread and in order, call `receive` with the values on the host.

        The tensor that `receive` gets lives in the ring: it must be read before `receive` returns. An exception of
        `receive` is raised at a later `submit` or at the end of the context.
        """
        assert self._writer is not None, "submit outside the context of the ring"
        source = source.contiguous()
        target = self._slot(source.nbytes)[: source.nbytes].view(source.dtype).view(source.shape)
        event = self._copier.start(source, target)
        self._writer.put(_Pending(event, target, receive))

    def _slot(self, n_bytes: int) -> torch.Tensor:
        index = self._n_submitted % len(self._slots)
        self._n_submitted += 1
        slot = self._slots[index]
        if slot is None or slot.numel() < n_bytes:
            slot = self._slots[index] = self._copier.allocate(n_bytes)
        return slot


def _receive(pending: _Pending) -> None:
    pending.event.synchronize()
    pending.receive(pending.values)
