"""Goes through the plan: trains what the ledger does not have yet, and appends a line for each finished run.

Killed and started again, it goes on with each run where that was. On a machine with a GPU it uses it.

Examples:
  python -m benchmarks.run --data DIR --pairs bccd --rows alone era kd --seeds 0 1 2 --jobs 2
  python -m benchmarks.run --data DIR --search --rows cwd pkd           the settings that are chosen from, seed 0
  python -m benchmarks.run --dry-run                                    what is missing
"""

import argparse
import json
import os
import os.path as osp
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Optional

from mmengine.config import Config

from benchmarks import ledger, plan
from benchmarks.data import MAKERS
from benchmarks.runs import ROOT, TEACHER, Run, teacher_of, wanted_runs
from benchmarks.system import commit, file_hash, versions
from mmrkd.commands.env import processor
from mmrkd.visualization import read_curve


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Trains what is missing."""
    args = parse(argv)
    workshop = Workshop(args.data, args.out, args.threads, args.ledger)
    runs = workshop.missing(wanted_runs(args.pairs, args.rows, args.seeds, args.search))
    if args.dry_run:
        print('\n'.join(run.name for run in runs) or 'nothing is missing')
        return
    failed = work_off(runs, workshop, args.jobs)
    if failed:
        sys.exit('failed, see train.log in their folders: ' + ', '.join(run.name for run in failed))


def parse(argv: Optional[Sequence[str]]) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--pairs', nargs='+', default=list(plan.PAIRS), choices=list(plan.PAIRS), help='(default: all)')
    parser.add_argument('--rows', nargs='+', default=list(plan.ROWS), choices=list(plan.ROWS), help='(default: all)')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0], help='(default: 0)')
    parser.add_argument('--search', action='store_true', help='try the settings of each row instead')
    parser.add_argument('--jobs', type=int, default=1, help='runs side by side (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of each run (default: %(default)s)')
    parser.add_argument('--data', default='data', help='folder that holds bccd/, deeppcb/, cifar10/ (default: data)')
    parser.add_argument('--out', default=osp.join('work_dirs', 'benchmarks'), help='(default: %(default)s)')
    parser.add_argument('--ledger', default=ledger.PATH, help="(default: the repository's)")
    parser.add_argument('--dry-run', action='store_true', help='only say what is missing')
    return parser.parse_args(argv)


class Workshop:
    """Where runs are trained, and the ledger that knows which of them are finished.

    Args:
        data: Folder with the data sets.
        out: Folder for work dirs.
        threads: Of one run.
        path: The ledger.
    """

    def __init__(self, data: str, out: str, threads: int, path: str) -> None:
        self.data, self.out, self.threads, self.path = osp.abspath(data), osp.abspath(out), threads, path
        self.digests: dict[Run, str] = {}

    def folder(self, run: Run) -> str:
        """Work dir of a run."""
        return osp.join(self.out, run.name)

    def checkpoint(self, run: Run) -> str:
        """Last checkpoint of the teacher of a run; whether it is there is another question."""
        pointer = osp.join(self.folder(teacher_of(run)), 'last_checkpoint')
        if not osp.exists(pointer):
            return ''
        with open(pointer) as file:
            return file.read().strip()

    def ready(self, run: Run) -> bool:
        """Whether its teacher is trained to its end, here."""
        return not run.needs_teacher or self._trained(teacher_of(run))

    def missing(self, runs: Sequence[Run]) -> list[Run]:
        """Returns those that the ledger does not have, and teachers that those need and whose weights are not here."""
        missing = {run for run in runs if ledger.find(ledger.read(self.path), run, self.digest(run)) is None}
        teachers = {teacher_of(run) for run in missing if run.needs_teacher}
        return [run for run in runs if run in missing or (run in teachers and not self._trained(run))]

    def digest(self, run: Run) -> str:
        """See :func:`benchmarks.ledger.digest`."""
        if run not in self.digests:
            os.environ['MMRKD_DATA'] = self._data_of(run)
            self.digests[run] = ledger.digest(Config.fromfile(self._written(run)), self._data_of(run))
        return self.digests[run]

    def start(self, run: Run) -> subprocess.Popen:
        """Begins a run, or goes on with it, in a process of its own."""
        maker = MAKERS.get(plan.PAIRS[run.pair].data)
        if maker is not None:
            maker(self.data, self._data_of(run))
        config = self._written(run)
        count = str(self.threads)
        env = dict(os.environ, MMRKD_DATA=self._data_of(run), OMP_NUM_THREADS=count, MKL_NUM_THREADS=count)
        env['PYTHONPATH'] = os.pathsep.join(filter(None, [ROOT, env.get('PYTHONPATH')]))
        command = [sys.executable, '-m', 'benchmarks.single', config, '--work-dir', self.folder(run)]
        with open(osp.join(self.folder(run), 'train.log'), 'a') as log:
            return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)

    def record(self, run: Run) -> dict[str, Any]:
        """Returns the line of a finished run."""
        folder, pair = self.folder(run), plan.PAIRS[run.pair]
        with open(osp.join(folder, 'result.json')) as file:
            result = json.load(file)
        name, scale = pair.metric
        names = {variant: name if variant == 'student' else f'{variant}/{name}' for variant in run.variants}
        curves = {variant: read_curve(folder, metric) for variant, metric in names.items()}
        tested = {variant: round(result['test'][metric] * scale, 2) for variant, metric in names.items()}
        best = {variant: max(curve, key=lambda point: point[1]) for variant, curve in curves.items()}
        facts = osp.join(folder, 'facts.json')
        return dict(
            run=run.name,
            pair=run.pair,
            row=run.row,
            seed=run.seed,
            setting=dict(run.setting),
            methods=[] if run.row == TEACHER else run.methods,
            config=self.digest(run),
            teacher=file_hash(self.checkpoint(run)) if run.needs_teacher else None,
            commit=commit(),
            versions=versions(),
            processor=processor(),
            date=datetime.now(timezone.utc).strftime('%Y-%m-%d'),
            epochs=curves['student'][-1][0],
            val_best={v: round(point[1] * scale, 2) for v, point in best.items()},
            val_best_epoch={v: point[0] for v, point in best.items()},
            val_last={v: round(curve[-1][1] * scale, 2) for v, curve in curves.items()},
            test_last=tested,
            facts=json.load(open(facts)) if osp.exists(facts) else None,
            **{key: value for key, value in result.items() if key != 'test'},
        )

    def _trained(self, run: Run) -> bool:
        return osp.exists(osp.join(self.folder(run), 'result.json'))

    def _data_of(self, run: Run) -> str:
        part = plan.PAIRS[run.pair].data
        return osp.join(self.out, 'data', part) if part else self.data

    def _written(self, run: Run) -> str:
        os.makedirs(self.folder(run), exist_ok=True)
        path = osp.join(self.folder(run), 'run.py')
        run.write_config(path, self.checkpoint(run))
        return path


def work_off(runs: Sequence[Run], workshop: Workshop, jobs: int) -> list[Run]:
    """Trains runs, some of them side by side, and appends their lines; returns those that failed."""
    waiting, busy, failed = list(runs), {}, []
    while waiting or busy:
        for run in [run for run in waiting if workshop.ready(run)][: jobs - len(busy)]:
            waiting.remove(run)
            busy[run] = workshop.start(run)
            print(f'{run.name}: begun', flush=True)
        if waiting and not busy:
            return [*failed, *waiting]  # their teacher failed
        for run in [run for run, process in busy.items() if process.poll() is not None]:
            if busy.pop(run).returncode:
                failed.append(run)
                print(f'{run.name}: failed', flush=True)
                continue
            record = workshop.record(run)
            ledger.append(record, workshop.path)
            print(f'{run.name}: {record["test_last"]} on test, {record["val_last"]} on val', flush=True)
        time.sleep(1)
    return failed


if __name__ == '__main__':
    main()
