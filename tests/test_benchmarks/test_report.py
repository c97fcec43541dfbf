"""Tables are the ledger's numbers, and the pages of the repository are those of its ledger."""

import os.path as osp

from benchmarks import ledger
from benchmarks.plots import plot_pair
from benchmarks.report import files, rows_of, spread, summary, table
from benchmarks.runs import ROOT


def line(row, seed, test, variant='student', pair='tiny', step=0.1, also=(), **changes):
    """A line of a ledger with numbers that can be checked by hand."""
    record = dict(
        run=f'{pair}/{row}/seed{seed}',
        pair=pair,
        row=row,
        seed=seed,
        setting={},
        config='abc',
        val_best={variant: test + 2.0},
        val_last={variant: test + 1.0},
        test_last={variant: test},
        seconds_a_step=step,
        cost={variant: dict(params=2_000_000, flops=5_000_000_000, latency=0.1)},
        processor='a processor',
        versions=dict(torch='2'),
    )
    for key in ('val_best', 'val_last', 'test_last', 'cost'):
        record[key].update({name: record[key][variant] for name in also})
    return {**record, **changes}


def test_pages_and_ledger_agree():
    for path, text in files(ledger.read()).items():
        with open(osp.join(ROOT, path)) as file:
            assert file.read() == text, f'{path} is not what the ledger says: run python -m benchmarks.report'


def records():
    return [
        line('alone', 0, 40.0),
        line('alone', 1, 42.0),
        line('era', 0, 10.0, config='older'),
        line('era', 0, 44.0, step=0.3, also=('integrated',)),
        line('era', 1, 45.0, step=0.2, also=('integrated',)),
        line('hint', 2, 41.0, step=0.1),
        line('hint', 0, 60.0, setting=dict(w_feat=5.0)),
        line('alone', 0, 90.0, pair='other'),
    ]


def test_a_row_has_the_newest_line_of_each_seed_and_its_gain(tiny_plan):
    rows = {(row['row'], row['variant']): row for row in rows_of('tiny', records())}
    era = rows['era', 'student']
    assert era['seeds'] == [0, 1] and era['test_last'] == [44.0, 45.0] and era['val_best'] == [46.0, 47.0]
    assert era['gains'] == [4.0, 3.0] and abs(era['time'] - 2.5) < 1e-9  # 0.3 / 0.1 and 0.2 / 0.1
    assert rows['hint', 'student']['gains'] == [] and rows['hint', 'student']['time'] is None  # alone has no seed 2
    assert ('era', 'integrated') in rows and ('dist', 'student') not in rows


def test_on_a_shared_processor_its_own_time_counts(tiny_plan):
    whole = [
        line('alone', 0, 40.0, device='cpu', processor_seconds=50.0),
        line('era', 0, 42.0, device='cpu', processor_seconds=110.0, also=('integrated',)),
    ]
    assert {row['row']: row['time'] for row in rows_of('tiny', whole)} == dict(alone=1.0, era=2.2)
    cut = [whole[0], dict(whole[1], processor_seconds=None)]
    assert {row['row']: row['time'] for row in rows_of('tiny', cut)} == dict(alone=1.0, era=None)


def test_the_table(tiny_plan):
    text = table(rows_of('tiny', records()))
    assert '| student | 0 1 |' not in text
    assert (
        '| **ERA** | 0 1 | 46.5 (46.0 47.0), 45.5 (45.0 46.0) | **44.5 (44.0 45.0)** | +3.5 | 2.50 | 2.000 | 5.000 |  |'
        in text
    )
    assert '| hint | 2 | 43.0, 42.0 | 41.0 |  |  | 2.000 | 5.000 | 1.0 |' in text
    assert '| alone | 0 1 | 43.0 (42.0 44.0), 42.0 (41.0 43.0) | 41.0 (40.0 42.0) |  | 1.00 |' in text


def test_the_summary_names_the_best_baseline(tiny_plan):
    given = [*records(), line('teacher', 0, 50.0)]
    assert summary(given).splitlines()[-1] == '| tiny | 41.0 | 41.0 (hint) | **44.5** | 50.0 |'


def test_spread():
    assert spread([1.25]) == '1.2' and spread([1.0, 2.0]) == '1.5 (1.0 2.0)'


def test_the_plot(tiny_plan, tmp_path):
    plot_pair(rows_of('tiny', records()), 'tiny', str(tmp_path / 'plot.svg'))
    assert (tmp_path / 'plot.svg').read_text().count('<path') > 10
    plot_pair([], 'tiny', str(tmp_path / 'none.svg'))
    assert not (tmp_path / 'none.svg').exists()
