"""Which classes of a teacher are those of the student."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Optional, Union


@dataclass(frozen=True)
class ClassMap:
    """A teacher that knows more classes than the student, seen in the student's.

    Attributes:
        names: Names of the student's classes, in their order.
        index: For each of them its place among the teacher's.
    """

    names: tuple[str, ...]
    index: tuple[int, ...]

    @classmethod
    def of(
        cls,
        given: Union[Sequence[str], Mapping[str, Union[str, int]]],
        classes: Optional[Sequence[str]],
        count: Optional[int],
    ) -> 'ClassMap':
        """Looks up names.

        Args:
            given: The student's classes in their order: names that the teacher has, too, or student's name -> teacher's
                name, or place.
            classes: The teacher's names; ``None`` if its checkpoint has none.
            count: How many classes it has.

        Raises:
            ValueError: A name is not the teacher's, two of the student's are one of the teacher's, or a place is none.
        """
        pairs = dict(given) if isinstance(given, Mapping) else {name: name for name in given}
        known = {name: place for place, name in enumerate(classes or ())}
        unknown = [value for value in pairs.values() if isinstance(value, str) and value not in known]
        if unknown and not known:
            raise ValueError(
                f'class_map: the checkpoint of the teacher has no names of classes, so that {unknown[:4]} cannot be '
                'looked up. Give places instead: class_map=dict(cup=41, ...).'
            )
        if unknown:
            near = {name: difflib.get_close_matches(name, known, n=1) for name in unknown[:4]}
            hints = '; '.join(f'{name!r}{f", did you mean {m[0]!r}?" if m else ""}' for name, m in near.items())
            raise ValueError(f'class_map: the teacher has no classes {hints}. It has {list(known)[:100]}.')
        index = tuple(known[value] if isinstance(value, str) else int(value) for value in pairs.values())
        wrong = [place for place in index if place < 0 or (count is not None and place >= count)]
        if wrong or len(set(index)) < len(index) or len(pairs) < len(given) or not index:
            raise ValueError(
                f'class_map: a place of its own from 0 to {count} - 1 for each class expected, found {list(index)}'
            )
        return cls(tuple(pairs), index)
