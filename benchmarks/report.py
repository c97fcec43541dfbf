"""Makes the results page, its plots and the README's table of the ledger.

Examples:
  python -m benchmarks.report            writes docs/results.md, docs/results_*.svg and the table in README.md
  python -m benchmarks.report --check    says whether they are what the ledger says
"""

import argparse
import os.path as osp
import re
import statistics
import sys
from collections.abc import Sequence
from typing import Any, Optional

from benchmarks import ledger, plan
from benchmarks.plan import Pair
from benchmarks.plots import plot_pair, plotted
from benchmarks.runs import ROOT, TEACHER, Run, teacher_of

PAGE = osp.join('docs', 'results.md')
MARKS = '<!-- from the ledger -->', '<!-- end -->'
INTRODUCTION = """# Results

Made by `python -m benchmarks.report` of [the ledger](../benchmarks/ledger.jsonl); [benchmarks](../benchmarks/README.md)
says how to run a row again. Mean over the seeds, single seeds in brackets, in percent; val at the best and at the last
epoch, test at the last. "Gain" is that of test over the student alone, mean over the seeds that both have. "Time" is a
training step over one of the student alone; on a CPU, which other work may share, the processor time of the training,
validation included, over that of the student alone, and nothing for a run that was interrupted. What was measured
before there was a ledger stands on a [page of its own](results_before_the_ledger.md).
"""


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Writes or checks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; fail where a file differs')
    args = parser.parse_args(argv)
    records = ledger.read()
    wrong = []
    for path, text in files(records).items():
        path = osp.join(ROOT, path)
        if osp.exists(path) and open(path).read() == text:
            continue
        wrong.append(path)
        if not args.check:
            with open(path, 'w') as file:
                file.write(text)
    if args.check and wrong:
        sys.exit(f'not what the ledger says, run python -m benchmarks.report: {", ".join(wrong)}')
    if not args.check:
        for name in plan.PAIRS:
            plot_pair(rows_of(name, records), plan.PAIRS[name].title, osp.join(ROOT, 'docs', f'results_{name}.svg'))


def files(records: list[dict[str, Any]]) -> dict[str, str]:
    """Returns path -> text of everything that is made of a ledger."""
    with open(osp.join(ROOT, 'README.md')) as file:
        readme = file.read()
    begin, end = (re.escape(mark) for mark in MARKS)
    table = f'{MARKS[0]}\n{summary(records)}\n{MARKS[1]}'
    return {PAGE: page(records), 'README.md': re.sub(f'{begin}.*?{end}', lambda _: table, readme, flags=re.S)}


def page(records: list[dict[str, Any]]) -> str:
    """Returns the results page."""
    parts = [INTRODUCTION]
    for name, pair in plan.PAIRS.items():
        rows = rows_of(name, records)
        if rows:
            parts += [f'## {pair.title}\n', f'{_about(name, pair, records)}\n', table(rows), '']
            if plotted(rows):
                parts.append(f'![gain against cost](results_{name}.svg)\n')
            parts += _search(name, records)
    return '\n'.join(parts)


def rows_of(name: str, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns what a table of a pair shows: for each row and variant its newest line of each seed, and the gain.

    Args:
        name: Of the pair.
        records: Lines of the ledger.
    """
    newest: dict[str, dict[int, dict]] = {}
    for record in records:
        if record['pair'] == name and not record['setting']:
            newest.setdefault(record['row'], {})[record['seed']] = record
    alone = newest.get('alone', {})
    rows = []
    for row in plan.ROWS:
        for variant in ('student', *plan.ROWS[row].variants):
            seeds = dict(sorted(newest.get(row, {}).items()))
            if not seeds:
                continue
            values = {key: [r[key][variant] for r in seeds.values()] for key in ('val_best', 'val_last', 'test_last')}
            both = [seed for seed in seeds if seed in alone]
            gains = [seeds[s]['test_last'][variant] - alone[s]['test_last']['student'] for s in both]
            times = [(_seconds(seeds[s]), _seconds(alone[s])) for s in both]
            rows.append(
                dict(
                    row=row,
                    variant=variant,
                    title=plan.ROWS[row].title + ('' if variant == 'student' else f', {variant} form'),
                    seeds=list(seeds),
                    **values,
                    gains=gains,
                    time=statistics.mean(own / base for own, base in times) if times and all(map(all, times)) else None,
                    cost=next(iter(seeds.values()))['cost'][variant],
                    published=plan.ROWS[row].published if variant == 'student' else '',
                    ours=plan.ROWS[row].ours,
                )
            )
    return rows


def _seconds(record: dict) -> Optional[float]:
    """What is compared between rows of a pair, which have as many steps; ``None`` if it was not seen whole."""
    return record['processor_seconds'] if record.get('device') == 'cpu' else record['seconds_a_step']


def table(rows: list[dict[str, Any]]) -> str:
    """Returns a Markdown table."""
    head = '| | seeds | val: best, last | test | gain | time | params (M) | FLOPs (G) | published |'
    students = [row for row in rows if row['variant'] == 'student']
    best = max(students, key=lambda row: statistics.mean(row['test_last']))
    lines = [head, '|' + '---|' * 9]
    for row in rows:
        mark = '**' if row is best else ''
        gain = '' if row['row'] == 'alone' or not row['gains'] else f'{statistics.mean(row["gains"]):+.1f}'
        time = '' if row['time'] is None or row['variant'] != 'student' else f'{row["time"]:.2f}'
        cost = row['cost']
        lines.append(
            f'| {mark}{row["title"]}{mark} | {" ".join(map(str, row["seeds"]))} | {spread(row["val_best"])}, '
            f'{spread(row["val_last"])} | {mark}{spread(row["test_last"])}{mark} | {gain} | {time} '
            f'| {cost["params"] / 1e6:.3f} | {cost["flops"] / 1e9:.3f} | {row["published"]} |'
        )
    return '\n'.join(lines)


def summary(records: list[dict[str, Any]]) -> str:
    """Returns the README's table: what each pair gains, the student only."""
    lines = ['| the student only, on test | alone | best baseline | ERA | teacher |', '|---|---|---|---|---|']
    for name, pair in plan.PAIRS.items():
        rows = {row['row']: row for row in rows_of(name, records) if row['variant'] == 'student'}
        if not {'alone', 'era'} <= rows.keys():
            continue
        others = [row for row in rows.values() if not row['ours'] and row['row'] != 'alone']
        best = max(others, key=lambda row: statistics.mean(row['test_last']), default=None)
        baseline = '' if best is None else f'{statistics.mean(best["test_last"]):.1f} ({best["title"]})'
        teacher = _teacher(name, records)
        mine, alone = (statistics.mean(rows[row]['test_last']) for row in ('era', 'alone'))
        shown = '' if teacher is None else f'{teacher["test_last"]["student"]:.1f}'
        lines.append(f'| {pair.title} | {alone:.1f} | {baseline} | **{mine:.1f}** | {shown} |')
    return '\n'.join(lines)


def spread(values: Sequence[float]) -> str:
    """Returns the mean, and single values in brackets if there are several: ``51.2 (50.8 51.6)``."""
    mean = f'{statistics.mean(values):.1f}'
    return mean if len(values) == 1 else f'{mean} ({" ".join(f"{value:.1f}" for value in values)})'


def _about(name: str, pair: Pair, records: list[dict[str, Any]]) -> str:
    lines = [f'{pair.splits[0].upper()}{pair.splits[1:]}.']
    teacher = _teacher(name, records)
    if teacher is not None:
        val, test, cost = (teacher[key]['student'] for key in ('val_last', 'test_last', 'cost'))
        lines.append(
            f'The teacher (seed 0) has {val:.1f} on val and {test:.1f} on test, {cost["params"] / 1e6:.3f} M '
            f'parameters and {cost["flops"] / 1e9:.3f} G.'
        )
    own = [record for record in records if record['pair'] == name]
    places = sorted({f'{record["processor"]}, torch {record["versions"]["torch"]}' for record in own})
    lines.append(f'Measured on: {"; ".join(places)}.')
    return ' '.join(lines)


def _teacher(name: str, records: list[dict[str, Any]]) -> Optional[dict[str, Any]]:
    return ledger.find(records, teacher_of(Run(name, TEACHER)))


def _search(name: str, records: list[dict[str, Any]]) -> list[str]:
    tried = [record for record in records if record['pair'] == name and record['setting']]
    if not tried:
        return []
    lines = ['What was chosen from, on val with seed 0, last epoch:\n', '| | setting | val |', '|---|---|---|']
    for record in tried:
        setting = ', '.join(f'{key}={value}' for key, value in record['setting'].items())
        lines.append(f'| {plan.ROWS[record["row"]].title} | `{setting}` | {record["val_last"]["student"]:.1f} |')
    return [*lines, '']


if __name__ == '__main__':
    main()
