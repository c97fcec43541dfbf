"""What an examination finds out: lines to read, and faults that have names."""

import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from mmrkd.doctor.faults import FAULTS

MOST_LINES, MOST_CHARACTERS = 6, 900


class FaultError(ValueError):
    """A training was stopped before its first iteration because of the faults in the message."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong here.

    Attributes:
        name: Its name in :data:`mmrkd.doctor.faults.FAULTS`.
        message: What was expected and what was found here.
    """

    name: str
    message: str


class Report:
    """Collects lines and faults.

    Args:
        ignore: Names of faults that are accepted; they become lines.

    Raises:
        ValueError: A name to ignore does not exist.
    """

    def __init__(self, ignore: Iterable[str] = ()) -> None:
        self.ignore = set(ignore)
        unknown = sorted(self.ignore - set(FAULTS))
        if unknown:
            raise ValueError(f'cannot ignore {unknown}: the faults are {", ".join(FAULTS)}')
        self.lines: list[str] = []
        self.faults: list[Fault] = []

    def say(self, text: str) -> None:
        """Adds lines to read."""
        self.lines.append(text)

    def fault(self, name: str, message: str) -> None:
        """Adds a fault, once."""
        found = Fault(name, message)
        if name in self.ignore:
            self.say(f'ignored: [{name}] {message}')
        elif found not in self.faults:
            self.faults.append(found)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Adds a table with aligned columns."""
        widths = [max(map(len, column)) for column in zip(header, *rows)]
        lines = ['  ' + '  '.join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in (header, *rows)]
        self.say('\n'.join([title, *lines]))

    @contextmanager
    def expecting(self, *names: str, **by_type: str) -> Iterator[None]:
        """Turns an exception inside a ``with`` block into a fault, and goes on after the block.

        Args:
            *names: The name of the fault.
            **by_type: Names for single types of exceptions, such as ``KeyError='method-unknown'``.
        """
        try:
            yield
        except Exception as error:  # libraries raise whatever they like; what is named here is where it happened
            if os.environ.get('MMRKD_DEBUG'):
                traceback.print_exc(file=sys.stderr)
            kinds = [by_type[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in by_type]
            self.fault([*kinds, *names][0], shortened(error))

    @property
    def problems(self) -> str:
        """The faults alone, as text; those of one name share their remedy."""
        lines = []
        for name in dict.fromkeys(fault.name for fault in self.faults):
            lines += [f'[{name}] {fault.message}' for fault in self.faults if fault.name == name]
            lines.append(f'  remedy: {FAULTS[name].remedy}')
        return '\n'.join(lines)

    def __str__(self) -> str:
        count = len(self.faults)
        end = f'{count} problem{"s" * (count > 1)}\n{self.problems}' if count else 'no problem found'
        return '\n'.join([*self.lines, end])


def shortened(error: BaseException) -> str:
    """Returns the message of an error without the pages that some libraries add."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    text = '\n  '.join(lines[:MOST_LINES])[:MOST_CHARACTERS] or 'no message'
    return text if isinstance(error, (ValueError, FileNotFoundError)) else f'{type(error).__name__}: {text}'
