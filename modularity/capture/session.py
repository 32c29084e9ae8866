"""Hooks on the taps of a model for as long as a capture runs, and the forward that ends when the last has fired.

The forward is ended by an exception raised in the hook of the last tap and caught here. Each batch is checked: a tap
that stayed silent, fired for more positions than the batch has, or handed over another width or dtype than the site
table declares is a SiteError. On the first batch the out-projection of what was captured is compared with what the
module returned (`SelfCheck`).
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from modularity.capture.selection import Values
from modularity.capture.self_check import check_projection
from modularity.errors import SiteError
from modularity.models import RoutedNeurons, Tap
from modularity.types import StackName

Extent = tuple[int, int]
Deliver = Callable[[int, Values], None]


class _StopForward(BaseException):
    """All wanted taps have fired: a signal, which an `except Exception` in a model must not eat."""


class TapSession:
    """Context manager that holds the hooks; `run` does one forward and delivers one tensor per tap.

    Parameters
    ----------
    taps : the wanted taps, any order
    deliver : called as `deliver(index of the tap, values of shape (B, T, width))` as soon as a tap is complete; neurons
        of experts come as `RoutedNeurons` of B examples
    """

    def __init__(self, taps: Sequence[Tap], deliver: Deliver) -> None:
        self._taps = tuple(taps)
        self._deliver = deliver
        self._handles: list[RemovableHandle] = []
        self._extents: Mapping[StackName, Extent] = {}
        self._parts: list[list[torch.Tensor]] = []
        self._n_positions: list[int] = []
        self._n_open = 0
        self._check: _OutputCheck | None = None

    def __enter__(self) -> Self:
        try:
            for index, tap in enumerate(self._taps):
                self._handles.append(tap.attach(self._receiver(index)))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def run(self, forward: Callable[[], object], extents: Mapping[StackName, Extent], *, self_check: bool) -> None:
        """One forward, ended after the last tap.

        Parameters
        ----------
        forward : runs the model on one batch
        extents : (examples, positions) of the batch in each stack
        self_check : compare the out-projection of what is captured with what the modules return

        Raises
        ------
        SiteError
            A tap was silent, fired too often, or its values are not what the site table declares.
        """
        self._extents = extents
        self._parts = [[] for _ in self._taps]
        self._n_positions = [0] * len(self._taps)
        self._n_open = len(self._taps)
        self._check = _OutputCheck(self._taps, extents, self._close_one) if self_check else None
        try:
            forward()
        except _StopForward:
            return
        finally:
            self._parts = []
            if self._check is not None:
                self._check.remove()
        self._refuse_silence()

    def _receiver(self, index: int) -> Callable[[Values], None]:
        def receive(values: Values) -> None:
            self._receive(index, values)

        return receive

    def _receive(self, index: int, values: Values) -> None:
        tap = self._taps[index]
        n_examples, n_positions = self._extents[tap.site.stack]
        values = as_batch(tap, values, n_examples)
        self._n_positions[index] += values.shape[1]
        if self._n_positions[index] > n_positions:
            raise SiteError(
                f"{describe(tap)} fired for {self._n_positions[index]} positions, expected {n_positions}: the module "
                f"runs more often than once per forward; check the path in the row of the site table"
            )
        whole = values
        if isinstance(values, torch.Tensor):
            self._parts[index].append(values)
            if self._n_positions[index] == n_positions and len(self._parts[index]) > 1:
                whole = torch.cat(self._parts[index], dim=1)
        if self._n_positions[index] < n_positions:
            return
        self._parts[index] = []
        self._deliver(index, whole)
        if self._check is None or tap.check is None:
            self._close_one()
        else:
            self._check.expect(index, whole)

    def _close_one(self) -> None:
        self._n_open -= 1
        if self._n_open == 0:
            raise _StopForward

    def _refuse_silence(self) -> None:
        silent = [
            f"{describe(tap)}: {seen} of {self._extents[tap.site.stack][1]} positions"
            for tap, seen in zip(self._taps, self._n_positions)
            if seen < self._extents[tap.site.stack][1]
        ]
        if silent:
            raise SiteError(
                f"{len(silent)} of {len(self._taps)} hooked modules did not fire for every position of the batch: "
                f"{'; '.join(silent[:3])}; check the paths in the row of the site table"
            )
        raise SiteError(
            "a module was called but returned nothing that could be checked; check its row of the site table"
        )

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _OutputCheck:
    """Forward hooks on the modules of checkable taps, for one batch."""

    def __init__(self, taps: Sequence[Tap], extents: Mapping[StackName, Extent], done: Callable[[], None]) -> None:
        self._taps = taps
        self._extents = extents
        self._done = done
        self._captured: dict[int, Values] = {}
        self._outputs: dict[int, list[torch.Tensor]] = {}
        self._handles = [
            tap.module.register_forward_hook(self._receiver(index))
            for index, tap in enumerate(taps)
            if tap.check is not None
        ]

    def expect(self, index: int, captured_BTU: Values) -> None:
        """The values of a tap are complete; its module's output follows."""
        self._captured[index] = captured_BTU

    def remove(self) -> None:
        """Take the hooks off again."""
        for handle in self._handles:
            handle.remove()

    def _receiver(self, index: int) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def receive(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._receive(index, output[0] if isinstance(output, tuple) else output)

        return receive

    def _receive(self, index: int, output: torch.Tensor) -> None:
        tap = self._taps[index]
        n_examples, _ = self._extents[tap.site.stack]
        outputs = self._outputs.setdefault(index, [])
        outputs.append(output.reshape(n_examples, -1, output.shape[-1]))
        if index not in self._captured:
            return
        captured = self._captured.pop(index)
        if isinstance(captured, RoutedNeurons):
            check_projection(tap, captured, torch.cat(outputs, dim=1))
        else:
            # First and last example show a wrong module or order as well as all do, at an eighth of the cost.
            ends = slice(None, None, max(n_examples - 1, 1))
            check_projection(tap, captured[ends], torch.cat([part[ends] for part in outputs], dim=1))
        del self._outputs[index]
        self._done()


def describe(tap: Tap) -> str:
    """Site, layer and module of a tap, as messages name it."""
    return f"{tap.site} layer {tap.layer} ({tap.side} of {tap.path})"


def as_batch(tap: Tap, values: Values, n_examples: int) -> Values:
    """Values of one firing as (B, T, width); the tap itself has checked the width.

    Parameters
    ----------
    tap : where they come from
    values : tensor of shape (B, T, width), or (B*T, width) where the tap says that rows arrive flattened; or neurons
        of experts for B*T tokens
    n_examples : B

    Raises
    ------
    SiteError
        Dtype or shape are not what the site table declares.
    """
    problem = None
    if values.dtype != tap.dtype:
        problem = f"dtype {tap.dtype}, seen {values.dtype}"
    elif isinstance(values, RoutedNeurons):
        if values.shape[1] % n_examples == 0:
            return values.batched(n_examples)
        problem = f"a multiple of {n_examples} tokens, seen {values.shape[1]}"
    elif values.dim() == 2 and tap.flattened and values.shape[0] % n_examples == 0:
        return values.reshape(n_examples, -1, tap.width)
    elif values.dim() != 3 or values.shape[0] != n_examples:
        problem = f"shape ({n_examples}, positions, {tap.width}), seen {tuple(values.shape)}"
    if problem:
        raise SiteError(f"{describe(tap)}: expected {problem}; correct the architecture's row of the site table")
    return values
