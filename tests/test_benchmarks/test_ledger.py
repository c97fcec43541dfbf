"""One line for each finished run."""

from mmengine.config import Config

from benchmarks import ledger
from benchmarks.runs import Run


def test_lines_are_read_as_they_were_written(tmp_path):
    path = str(tmp_path / 'ledger.jsonl')
    assert ledger.read(path) == []
    for number in (1, 2):
        ledger.append(dict(run='a', value=number), path)
    assert ledger.read(path) == [dict(run='a', value=1), dict(run='a', value=2)]


def test_a_line_that_a_kill_cut_short_costs_only_itself(tmp_path):
    path = tmp_path / 'ledger.jsonl'
    path.write_text('{"run": "a"}\n{"run": "b", "val')
    ledger.append(dict(run='c'), str(path))
    assert ledger.read(str(path)) == [dict(run='a'), dict(run='c')]


def test_the_newest_line_of_a_run_that_was_told_to_do_the_same():
    run = Run('bccd', 'era')
    records = [dict(run=run.name, config=config, value=i) for i, config in enumerate(('x', 'y', 'y'))]
    assert ledger.find(records, run)['value'] == ledger.find(records, run, 'y')['value'] == 2
    assert ledger.find(records, run, 'x')['value'] == 0
    assert ledger.find(records, run, 'z') is ledger.find(records, Run('bccd', 'era', seed=1)) is None


def test_the_digest_knows_settings_and_not_places():
    def digest(root, ckpt, weight):
        methods = [dict(type='mmrkd.ERA', w_feat=weight)]
        data = dict(dataset=dict(data_root=f'{root}/bccd/'))
        model = dict(teacher=dict(ckpt=ckpt), methods=methods)
        return ledger.digest(Config(dict(model=model, train_dataloader=data)), root)

    assert digest('/here', 'a.pth', 1.0) == digest('/there', 'b.pth', 1.0) != digest('/here', 'a.pth', 2.0)
