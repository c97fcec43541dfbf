"""Runs that are interrupted anywhere end, bit for bit, like runs that are not."""

import os
import random
import re
import signal
import time

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from mmengine.registry import DATASETS, HOOKS
from mmengine.runner import Runner

from mmrkd.checkpoint import METHOD_STATE, RUN_STATE
from mmrkd.engine import prepare_config
from mmrkd.engine.resume import settle_checkpoint


@pytest.fixture(autouse=True)
def augmented():
    """Data that is augmented with the random numbers of all three libraries."""

    @DATASETS.register_module()
    class NoisyData(DATASETS.get('TinyData')):
        def __getitem__(self, index):
            item = super().__getitem__(index)
            noise = random.random() + np.random.rand() + torch.rand(()).item()
            item['inputs'] = (item['inputs'].float() * (0.5 + noise / 6)).to(torch.uint8)
            return item


class Killed(BaseException):
    """Nothing in a run catches it, and no hook runs after it: what SIGKILL leaves on the disk."""


@HOOKS.register_module()
class Kill(Hook):
    """Ends the run before an iteration, or before a validation."""

    priority = 'LOWEST'

    def __init__(self, iteration=None, validation=None):
        self.iteration, self.validation, self.validations = iteration, validation, 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            raise Killed

    def before_val_epoch(self, runner):
        self.validations += 1
        if self.validations == self.validation:
            raise Killed


@pytest.fixture
def killed_while_writing(monkeypatch):
    """Returns a function that makes the n-th write of a checkpoint the last thing that the process does."""

    def killed_while_writing(number):
        writes = []

        def fsync(_file):
            writes.append(1)
            if len(writes) == number:
                raise Killed

        monkeypatch.setattr(os, 'fsync', fsync)

    return killed_while_writing


@pytest.fixture
def noisy_cfg(run_cfg):
    """Returns a function that makes a config of 3 epochs with 3 iterations (8 images, batches of 3)."""

    def noisy_cfg(folder, *hooks, ema=True, **changes):
        cfg = run_cfg(folder, ema=ema)
        cfg.train_dataloader.update(batch_size=3)
        cfg.train_dataloader.dataset.type = 'NoisyData'
        cfg.train_cfg.max_epochs = 3
        cfg.default_hooks.checkpoint.update(max_keep_ckpts=1, save_best='tiny/score', rule='greater')
        cfg.merge_from_dict(changes)
        cfg.train_cfg = {key: value for key, value in cfg.train_cfg.items() if value is not None}
        cfg.custom_hooks = [*cfg.custom_hooks, *hooks]
        return prepare_config(cfg)

    return noisy_cfg


def iter_based(sampler='InfiniteSampler'):
    return {
        'train_cfg': dict(by_epoch=False, max_iters=9, val_interval=4, max_epochs=None),
        'train_dataloader.sampler.type': sampler,
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 2,
    }


SETTINGS = {
    'epochs': {},
    'iterations of an epoch loop': {
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 2,
    },
    'workers': {
        'default_hooks.checkpoint.by_epoch': False,
        'default_hooks.checkpoint.interval': 2,
        'train_dataloader.num_workers': 2,
    },
    'iterations': iter_based(),
    'iterations, default sampler': iter_based('DefaultSampler'),
}


def read(path):
    return torch.load(path, weights_only=False)


def read_last(runner):
    return read(os.path.join(runner.work_dir, 'epoch_2.pth'))


def flat(value, name=''):
    """Leaves of nested containers by name."""
    if isinstance(value, dict):
        return {k: v for key, item in value.items() for k, v in flat(item, f'{name}/{key}').items()}
    if isinstance(value, (list, tuple)):
        return {k: v for i, item in enumerate(value) for k, v in flat(item, f'{name}/{i}').items()}
    return {name: value}


ENTRIES = ('state_dict', 'ema_state_dict', METHOD_STATE, 'optimizer', 'param_schedulers', RUN_STATE)


def assert_same_end(folder, expected, leftovers=False):
    """The same files, with the same weights, averages, optimiser, schedulers and random states in them.

    ``leftovers``: a process that is killed after it wrote a checkpoint and before it removed the older one leaves that.
    """
    names = [{path.name for path in where.glob('*.pth*')} for where in (folder, expected)]
    more = names[0] - names[1]
    assert names[1] <= names[0] and (leftovers or not more)
    assert all(re.fullmatch(r'(iter|epoch)_\d+\.pth(\.part)?', name) for name in more)
    for name in names[1]:
        found, wanted = read(folder / name), read(expected / name)
        assert sorted(found) == sorted(wanted)
        for entry in ENTRIES:
            left, right = flat(found.get(entry)), flat(wanted.get(entry))
            assert list(left) == list(right)
            for key, value in right.items():
                same = torch.equal(left[key], value) if isinstance(value, torch.Tensor) else left[key] == value
                assert same, (name, entry, key)
        assert found['meta']['iter'] == wanted['meta']['iter'] and found['meta']['epoch'] == wanted['meta']['epoch']
        scores = [ckpt['message_hub']['runtime_info'].get('best_score') for ckpt in (found, wanted)]
        assert scores[0] == scores[1]


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory):
    """Folders of finished runs by setting."""
    return {}


class TestKilledAndResumed:
    """Each resumed run starts as a new process would: with other random numbers, and the files that are there."""

    def resume(self, noisy_cfg, train, folder, **changes):
        random.seed(99), np.random.seed(99), torch.manual_seed(99)
        cfg = noisy_cfg(folder, resume=True, **changes)
        settle_checkpoint(cfg)
        return train(cfg)

    @pytest.mark.parametrize(
        'setting, kill',
        [
            ('epochs', dict(iteration=4)),
            ('epochs', dict(validation=3)),
            ('iterations of an epoch loop', dict(iteration=4)),
            ('iterations', dict(iteration=7)),
            ('iterations, default sampler', dict(iteration=7)),
            pytest.param('workers', dict(iteration=5), marks=pytest.mark.slow),
        ],
        ids=str,
    )
    def test_it_ends_like_the_run_that_was_not(
        self, setting, kill, noisy_cfg, train, uninterrupted, tmp_path, tmp_path_factory
    ):
        changes = SETTINGS[setting]
        if setting not in uninterrupted:
            uninterrupted[setting] = tmp_path_factory.mktemp('whole')
            train(noisy_cfg(uninterrupted[setting], **changes))
        with pytest.raises(Killed):
            train(noisy_cfg(tmp_path, dict(type='Kill', **kill), **changes))
        assert self.resume(noisy_cfg, train, tmp_path, **changes).iter == 9
        assert_same_end(tmp_path, uninterrupted[setting])

    # The writes of this run: epoch_1, best_1, epoch_1 again (it names the best), epoch_2, ...
    @pytest.mark.parametrize('write', [2, 4])
    def test_killed_while_it_writes(
        self, write, killed_while_writing, noisy_cfg, train, uninterrupted, tmp_path, tmp_path_factory, monkeypatch
    ):
        if 'epochs' not in uninterrupted:
            uninterrupted['epochs'] = tmp_path_factory.mktemp('whole')
            train(noisy_cfg(uninterrupted['epochs']))
        with monkeypatch.context():
            killed_while_writing(write)
            with pytest.raises(Killed):
                train(noisy_cfg(tmp_path))
        monkeypatch.undo()
        assert (tmp_path / 'epoch_1.pth').is_file() and len(list(tmp_path.glob('*.part'))) == 1
        self.resume(noisy_cfg, train, tmp_path)
        assert_same_end(tmp_path, uninterrupted['epochs'])

    def test_an_older_best_one_that_a_kill_left_is_removed(self, noisy_cfg, train, tmp_path):
        with pytest.raises(Killed):
            train(noisy_cfg(tmp_path, dict(type='Kill', iteration=7)))
        best = next(tmp_path.glob('best_*.pth'))
        older = best.with_name(best.name.rpartition('_')[0] + '_0.pth')
        other = tmp_path / 'best_of_mine.pth'
        for path in (older, other):
            path.write_bytes(best.read_bytes())
        self.resume(noisy_cfg, train, tmp_path)
        assert not older.exists() and other.exists()

    def test_a_torn_checkpoint_is_passed_over(self, noisy_cfg, train, uninterrupted, tmp_path, capsys):
        """As other storage may leave it: the last file is there, named in ``last_checkpoint``, and half as long."""
        changes = {'default_hooks.checkpoint.max_keep_ckpts': 2}
        with pytest.raises(Killed):
            train(noisy_cfg(tmp_path, dict(type='Kill', iteration=7), **changes))
        content = (tmp_path / 'epoch_2.pth').read_bytes()
        (tmp_path / 'epoch_2.pth').write_bytes(content[: len(content) // 2])
        self.resume(noisy_cfg, train, tmp_path, **changes)
        output = capsys.readouterr().out
        assert 'epoch_2.pth' in output and 'the one before it is tried' in output
        left, right = read(tmp_path / 'epoch_3.pth'), read(uninterrupted['epochs'] / 'epoch_3.pth')
        for entry in ('state_dict', 'ema_state_dict', METHOD_STATE, 'optimizer'):
            expected = flat(right[entry])
            assert all(torch.equal(v, torch.as_tensor(expected[k])) for k, v in flat(left[entry]).items()
                       if isinstance(v, torch.Tensor))  # fmt: skip


class TestSchedules:
    def test_they_resume_in_their_middle(self, noisy_cfg, train, tmp_path):
        """Killed after the new branch has joined in and while the factor falls; the config starts with one branch."""
        hooks = [
            dict(type='mmrkd.DistillScheduleHook', warmup=2, decay=4, end=8, by_epoch=False),
            dict(type='mmrkd.ExpandHook', at=[1]),
        ]
        changes = {'model.methods.0.num_branches': 2, 'model.methods.0.start_branches': 1}
        train(noisy_cfg(tmp_path / 'whole', *hooks, **changes))
        with pytest.raises(Killed):
            train(noisy_cfg(tmp_path / 'run', *hooks, dict(type='Kill', iteration=7), **changes))
        random.seed(99), np.random.seed(99), torch.manual_seed(99)
        runner = train(noisy_cfg(tmp_path / 'run', *hooks, resume=True, **changes))
        method = runner.model.methods[0]
        assert method.scale == 0 and method.active_branches == 2
        assert any(p.abs().sum() > 0 for p in method.neck.branches[1][-1].norms.parameters())
        assert_same_end(tmp_path / 'run', tmp_path / 'whole')


class TestWeightsThatSetThemselves:
    CHANGES = {
        **SETTINGS['iterations of an epoch loop'],
        'model.methods.0': dict(type='mmrkd.FitNets', w_feat='auto', balance=dict(share=0.2, steps=5)),
    }

    @pytest.mark.parametrize('iteration, seen', [(5, 4), (8, 5)])
    def test_a_run_killed_while_it_measures_or_later_goes_on(
        self, iteration, seen, noisy_cfg, train, uninterrupted, tmp_path, tmp_path_factory
    ):
        if 'balance' not in uninterrupted:
            uninterrupted['balance'] = tmp_path_factory.mktemp('whole')
            train(noisy_cfg(uninterrupted['balance'], **self.CHANGES))
        with pytest.raises(Killed):
            train(noisy_cfg(tmp_path, dict(type='Kill', iteration=iteration), **self.CHANGES))
        saved = read(next(tmp_path.glob('iter_*.pth')))[METHOD_STATE]['state_dict']
        assert saved['methods.fitnets.balance.seen'].tolist() == [seen]
        random.seed(99), np.random.seed(99), torch.manual_seed(99)
        runner = train(noisy_cfg(tmp_path, resume=True, **self.CHANGES))
        assert runner.model.methods[0].balance.shares.count_nonzero() == 5
        assert_same_end(tmp_path, uninterrupted['balance'])


class TestOffIsOffThroughAWholeRun:
    def test_the_loops_and_the_hook_draw_no_random_number(self, run_cfg, train, tmp_path):
        """A plain run and one with the exact loop and hook, but no method, see the same augmentations."""
        ends = []
        for plain in (True, False):
            cfg = run_cfg(tmp_path / str(plain), plain=plain, methods=())
            cfg.train_dataloader.dataset.type = 'NoisyData'
            ends.append(read_last(train(prepare_config(cfg)))['state_dict'])
        assert list(ends[0]) == list(ends[1])
        assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())


@pytest.mark.slow
class TestKillMinus9:
    """Processes that get SIGKILL at random moments; ``MMRKD_KILLS=20`` asks for twenty of them (default: 3)."""

    @pytest.mark.parametrize('setting', ['epochs', 'iterations of an epoch loop'])
    def test_the_run_ends_like_the_one_that_was_not_killed(self, setting, noisy_cfg, train, tmp_path):
        moments, wanted, kills, runs = random.Random(0), int(os.environ.get('MMRKD_KILLS', 3)), 0, 0
        start = time.monotonic()
        train(noisy_cfg(tmp_path / 'whole', **SETTINGS[setting]))
        duration = time.monotonic() - start
        while kills < wanted or runs == 0:
            folder, finished = tmp_path / f'run_{runs}', False
            while not finished:
                finished = self.attempt(noisy_cfg, folder, setting, moments.uniform(0, duration), kills < wanted)
                kills += not finished
            assert_same_end(folder, tmp_path / 'whole', leftovers=True)
            runs += 1
        assert kills == wanted

    def attempt(self, noisy_cfg, folder, setting, moment, kill):
        """Starts or resumes the run in a process of its own; returns whether it came to its end."""

        def body():
            cfg = noisy_cfg(folder, resume=True, **SETTINGS[setting])
            settle_checkpoint(cfg)
            Runner.from_cfg(cfg).train()
            os._exit(0)

        process = mp.get_context('fork').Process(target=body)
        process.start()
        process.join(moment if kill else 120)
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
        return process.exitcode == 0
