"""Values of one tap to their rows in the output array, and the refusal of numbers that cannot be stored.

On the CPU the rows are written straight into the output. On CUDA the selected rows are cast on the device and cross to
the host through a `HostRing`. Either way the smallest and largest value before the cast decide whether all is well, and
the rows at fault are looked up only when it is not.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import torch

from modularity.capture.selection import Selection, Values, put_rows
from modularity.capture.storage_dtype import STORAGE_LIMIT, TORCH_DTYPE
from modularity.capture.transfer import HostRing
from modularity.errors import NumericError
from modularity.models import Tap
from modularity.types import StorageDtype

Deliver = Callable[["Target", Values, Selection], None]


@dataclass(frozen=True)
class Target:
    """Where the rows of one tap go."""

    tap: Tap
    out_RU: torch.Tensor
    """(R, U) on the CPU, any strides, in the storage dtype."""
    row_start: int
    """Global row of `out_RU[0]`, for messages."""
    storage_dtype: StorageDtype

    def fits(self, low: float, high: float) -> bool:
        """Whether values with these extremes are finite and stay so in the storage dtype."""
        return math.isfinite(low) and math.isfinite(high) and max(-low, high) < STORAGE_LIMIT[self.storage_dtype]

    def refuse(self, low: float, high: float, rows: torch.Tensor, values_GU: torch.Tensor) -> NoReturn:
        """Say which rows hold what cannot be stored.

        Parameters
        ----------
        low, high : extremes before the cast, for which `fits` is False
        rows : int64 of shape (G,), rows of `out_RU`
        values_GU : the values at these rows, before or after the cast

        Raises
        ------
        NumericError
            Always.
        """
        where = f"{self.tap.site} layer {self.tap.layer}"
        limit = STORAGE_LIMIT[self.storage_dtype]
        n_bad, bad_rows, places = self._bad_places(rows, values_GU, limit)
        if math.isfinite(low) and math.isfinite(high):
            worst = high if high >= -low else low
            wider = "bfloat16 or float32" if self.storage_dtype == "float16" else "float32"
            raise NumericError(
                f"{where}: {worst:.6g} does not fit {self.storage_dtype}, where magnitudes must be below {limit:.6g}; "
                f"{places}; store as {wider} (capture.dtype)",
                bad_rows,
            )
        raise NumericError(
            f"{where}: {n_bad} captured values are NaN or infinite; {places}; expected finite numbers: load the "
            f"model in bfloat16 or float32 (model.dtype) if it runs in float16, and check the checkpoint's weights",
            bad_rows,
        )

    def _bad_places(self, rows: torch.Tensor, values_GU: torch.Tensor, limit: float) -> tuple[int, list[int], str]:
        bad_GU = ~(values_GU.double().abs() < limit)
        bad_rows = sorted((rows[bad_GU.any(1)] + self.row_start).tolist())
        shown = ", ".join(str(row) for row in bad_rows[:5]) + (" …" if len(bad_rows) > 5 else "")
        unit = int(bad_GU.any(0).nonzero()[0])
        return int(bad_GU.sum()), bad_rows, f"{len(bad_rows)} rows ({shown}), first at unit {unit}"


def deliver_on_host(target: Target, values_BTU: Values, selection: Selection) -> None:
    """Select, check and write on the CPU, without a copy in between."""
    low, high = selection.store(values_BTU, target.out_RU)
    if not target.fits(low, high):
        target.refuse(low, high, torch.from_numpy(selection.rows), selection.select(values_BTU))


class RingDelivery:
    """Select and cast on the device, copy through a ring, check and write in the ring's thread.

    Parameters
    ----------
    ring : an entered ring; when its context ends, everything is written or an error is raised
    """

    def __init__(self, ring: HostRing) -> None:
        self._ring = ring

    def __call__(self, target: Target, values_BTU: Values, selection: Selection) -> None:
        """Start the way of one tap's rows to the host."""
        selected_GU = selection.select(values_BTU)
        rows = torch.from_numpy(selection.rows)
        width = selected_GU.shape[1]

        @torch.inference_mode()
        def receive_rows(host_GU: torch.Tensor) -> None:
            put_rows(target.out_RU, rows, host_GU)

        def receive_extremes(host_2: torch.Tensor) -> None:
            low, high = host_2.tolist()
            if not target.fits(low, high):
                target.refuse(low, high, rows, target.out_RU[rows, :width])

        self._ring.submit(selected_GU.to(TORCH_DTYPE[target.storage_dtype]), receive_rows)
        self._ring.submit(torch.stack(torch.aminmax(selected_GU)).double(), receive_extremes)
