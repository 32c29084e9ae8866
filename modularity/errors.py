"""Every error that the package raises on purpose: one base class and a few leaves.

A message holds the offending value, what was expected, and the remedy. Where several things are wrong at once,
`InputError` lists all of them.
"""

from collections.abc import Iterable


class ModularityError(Exception):
    """Base of all errors raised on purpose by this package."""


class InputError(ModularityError):
    """What the user handed over (a flag, a job file, a data file) cannot be used; raised before any work starts.

    Parameters
    ----------
    problems : one message for each problem found, each with the value, what was expected and the remedy
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        if len(self.problems) == 1:
            message = self.problems[0]
        else:
            lines = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(self.problems, 1))
            message = f"{len(self.problems)} problems:\n{lines}"
        super().__init__(message)

    def __reduce__(self) -> tuple[type["InputError"], tuple[tuple[str, ...]]]:
        """Pickle by the list of problems, so that the error survives the way back from a Ray worker."""
        return type(self), (self.problems,)


class DataError(ModularityError):
    """An array handed to a kernel has a shape, dtype or content for which the result is not defined."""


class ModelError(ModularityError):
    """A checkpoint cannot be loaded, or its architecture is not in the site table."""


class SiteError(ModelError):
    """A site is missing, silent, of another width than declared, or does not reproduce its module's output."""


class NumericError(ModularityError):
    """A captured or computed value is NaN, infinite, or does not fit the storage dtype.

    Parameters
    ----------
    message : what is wrong, and where
    rows : stored rows that hold such values, as far as they are known
    """

    def __init__(self, message: str, rows: Iterable[int] = ()) -> None:
        self.rows = tuple(rows)
        super().__init__(message)

    def __reduce__(self) -> tuple[type["NumericError"], tuple[str, tuple[int, ...]]]:
        """Pickle with the rows, so that they survive the way back from a Ray worker."""
        return type(self), (str(self), self.rows)


class StoreError(ModularityError):
    """A run or one of its parts is missing, damaged, or of a format version that this package does not read."""


class UnavailableError(StoreError):
    """The store itself is at fault: it is full, or has not answered for as long as it is asked again.

    Every other item would meet the same, so a job ends with it and starts no more.
    """


class IdentityError(StoreError):
    """A run holds results of another identity (model, data, config) than the one about to be written."""


class AllowanceError(ModularityError):
    """The plan of a job needs more bytes, memory or time than its allowance."""


class WorkError(ModularityError):
    """Work items failed after their last attempt; the message names them, what succeeded stays recorded."""
