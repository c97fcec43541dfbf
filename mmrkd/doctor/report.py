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
    """Collects lines, warnings and faults.

    A warning has a name and a remedy as a fault has, but a training begins all the same.

    Args:
        ignore: Names of faults and warnings that are accepted; they become lines.

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
        self.warnings: list[Fault] = []

    def say(self, text: str) -> None:
        """Adds lines to read."""
        self.lines.append(text)

    def fault(self, name: str, message: str) -> None:
        """Adds a fault, once."""
        self._add(self.faults, Fault(name, message))

    def warn(self, name: str, message: str) -> None:
        """Adds a warning, once."""
        self._add(self.warnings, Fault(name, message))

    def judge(self, name: str, message: str, fault: bool) -> None:
        """Adds a fault or a warning: what it is depends on how much is wrong."""
        self._add(self.faults if fault else self.warnings, Fault(name, message))

    def _add(self, to: list[Fault], found: Fault) -> None:
        if found.name in self.ignore:
            self.say(f'ignored: [{found.name}] {found.message}')
        elif found not in to:
            to.append(found)

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
        return _listed(self.faults)

    def __str__(self) -> str:
        count = len(self.faults)
        end = f'{count} problem{"s" * (count > 1)}\n{self.problems}' if count else 'no problem found'
        warnings = [_listed(self.warnings, 'warning: ')] if self.warnings else []
        return '\n'.join([*self.lines, *warnings, end])


def _listed(faults: Sequence[Fault], before: str = '') -> str:
    lines = []
    for name in dict.fromkeys(fault.name for fault in faults):
        lines += [f'{before}[{name}] {fault.message}' for fault in faults if fault.name == name]
        lines.append(f'  remedy: {FAULTS[name].remedy}')
    return '\n'.join(lines)


def shortened(error: BaseException) -> str:
    """Returns the message of an error without the pages that some libraries add."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    text = '\n  '.join(lines[:MOST_LINES])[:MOST_CHARACTERS] or 'no message'
    return text if isinstance(error, (ValueError, FileNotFoundError)) else f'{type(error).__name__}: {text}'
