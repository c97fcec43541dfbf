"""The runs that a plan asks for: which there are, in which order, and the config of each."""

import os.path as osp
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import plan
from benchmarks.plan import Pair

ROOT = osp.dirname(osp.dirname(osp.abspath(__file__)))
TEACHER = 'teacher'


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        pair: Name in :data:`benchmarks.plan.PAIRS`.
        row: Name in :data:`benchmarks.plan.ROWS`, or ``'teacher'``.
        seed: Of the training.
        setting: Changes of the row's first method, for a search: ``(('w_feat', 0.2),)``.
    """

    pair: str
    row: str
    seed: int = 0
    setting: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """Unique, and a folder."""
        changed = ','.join(f'{key}={value}' for key, value in self.setting)
        return osp.join(self.pair, self.row + (f'@{changed}' if changed else ''), f'seed{self.seed}')

    @property
    def methods(self) -> list[dict]:
        """Their configs."""
        methods = plan.ROWS[self.row].methods_for(self.pair, plan.PAIRS[self.pair]) or []
        return [{**method, **(dict(self.setting) if index == 0 else {})} for index, method in enumerate(methods)]

    @property
    def variants(self) -> tuple[str, ...]:
        """What is evaluated."""
        return ('student',) if self.row == TEACHER else ('student', *plan.ROWS[self.row].variants)

    @property
    def needs_teacher(self) -> bool:
        """Whether the teacher must be trained first."""
        return self.row != TEACHER and bool(self.methods)

    def options(self, teacher_ckpt: str) -> tuple[str, dict[str, Any]]:
        """Returns the config that this run begins with, and what it changes there."""
        pair = plan.PAIRS[self.pair]
        changes: dict[str, Any] = {**_teacher_options(pair)} if self.row == TEACHER else {**pair.options}
        changes.update(randomness=dict(seed=self.seed), runner_type='mmrkd.Runner')
        if self.row == TEACHER:
            return pair.teacher, changes
        config, student = pair.separated if plan.ROWS[self.row].separated else (pair.config, pair.student)
        if not self.methods:
            return student, changes
        config = plan.ROWS[self.row].configs.get(self.pair, config)
        changes.update(model=dict(methods=self.methods, teacher=dict(ckpt=teacher_ckpt)), check=False)
        if len(self.variants) > 1:
            changes.update(val_cfg=dict(type='mmrkd.VariantValLoop', variants=self.variants))
            changes.update(test_cfg=dict(type='mmrkd.VariantTestLoop', variants=self.variants))
        return config, changes

    def write_config(self, path: str, teacher_ckpt: str) -> None:
        """Writes a config that can be trained by hand, too."""
        base, changes = self.options(teacher_ckpt)
        lines = [f'{key} = {value!r}' for key, value in changes.items()]
        with open(path, 'w') as file:
            file.write('\n'.join([f'"""{self.name}"""', '', f'_base_ = {osp.join(ROOT, base)!r}', *lines, '']))


def wanted_runs(pairs: Iterable[str], rows: Sequence[str], seeds: Iterable[int], search: bool = False) -> list[Run]:
    """Returns the runs of some pairs, rows and seeds, each teacher that they need first.

    Args:
        pairs: Their names.
        rows: Their names; one that a pair does not have is left out there.
        seeds: Of the students; there is one teacher, of seed 0.
        search: Whether to try the settings of :attr:`benchmarks.plan.Row.search` instead of the rows themselves.
    """
    runs: list[Run] = []
    for pair in pairs:
        own: list[Run] = []
        for seed in seeds:
            for row in rows:
                unfit = row in plan.PAIRS[pair].without
                if unfit or plan.ROWS[row].methods_for(pair, plan.PAIRS[pair]) is None:
                    continue
                settings = _settings(row, pair) if search else [()]
                own += [Run(pair, row, seed, setting) for setting in settings]
        teachers = [teacher_of(run) for run in own if run.needs_teacher]
        runs += [*teachers, *own]
    return list(dict.fromkeys(runs))


def teacher_of(run: Run) -> Run:
    """Returns the run that trains the teacher: pairs with the same one share it."""
    own = plan.PAIRS[run.pair]
    same = (name for name, pair in plan.PAIRS.items() if (pair.teacher, pair.data) == (own.teacher, own.data))
    return Run(next(same), TEACHER)


def _settings(row: str, pair: str) -> list[tuple[tuple[str, Any], ...]]:
    argument, values = plan.ROWS[row].search.get(plan.PAIRS[pair].task, (None, ()))
    return [((argument, value),) for value in values]


def _teacher_options(pair: Pair) -> Mapping[str, Any]:
    """A teacher of images has the schedule of its student; those of boxes have their own."""
    return pair.options if pair.task == 'classification' else {}
