from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.registry import HOOKS

from mmrkd.engine import ClassCheckHook


def runner_of(data, teacher):
    """A runner whose training data and teacher have these class names."""
    metainfo = {} if data is None else dict(classes=data)
    teachers = dict(default=SimpleNamespace(classes=teacher, ckpt='r101.pth'))
    return SimpleNamespace(
        model=SimpleNamespace(teachers=teachers, methods=dict(kd=listening())),
        train_dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo)),
    )


def listening(**changes):
    return SimpleNamespace(**dict(dict(teacher='default', active=True, compares_classes=True), **changes))


@pytest.mark.parametrize(
    'data, teacher',
    [
        (('cat', 'dog'), ('cat', 'dog')),
        (['cat', 'dog'], ('cat', 'dog')),
        (None, ('cat', 'dog')),
        (('cat', 'dog'), None),
        (None, None),
    ],
)
def test_equal_or_unknown_names_pass(data, teacher):
    ClassCheckHook().before_train(runner_of(data, teacher))


@pytest.mark.parametrize(
    'teacher',
    [('dog', 'cat'), ('cat', 'dog', 'bird'), ('cat',), ('Cat', 'dog')],
    ids=['order', 'more', 'fewer', 'case'],
)
def test_other_names_are_refused(teacher):
    with pytest.raises(ValueError) as error:
        ClassCheckHook().before_train(runner_of(('cat', 'dog'), teacher))
    message = str(error.value)
    assert f'expected {("cat", "dog")}' in message and f'found {teacher}' in message
    assert 'r101.pth' in message


@pytest.mark.parametrize('method', [dict(compares_classes=False), dict(active=False), dict(teacher='another')])
def test_methods_that_compare_no_classes_with_it_do_not_mind(method):
    runner = runner_of(('cat', 'dog'), ('dog', 'cat'))
    runner.model.methods = dict(hint=listening(**method))
    ClassCheckHook().before_train(runner)
    runner.model.methods['kd'] = listening()
    with pytest.raises(ValueError, match='other classes'):
        ClassCheckHook().before_train(runner)


def test_data_without_meta_information_passes():
    runner = runner_of(None, ('cat',))
    runner.train_dataloader.dataset = [1, 2]
    ClassCheckHook().before_train(runner)


def test_it_looks_through_a_parallel_wrapper():
    wrapped = MMDistributedDataParallel.__new__(MMDistributedDataParallel)
    torch.nn.Module.__init__(wrapped)
    wrapped.module = BaseModel.__new__(type('Model', (BaseModel,), {'forward': None}))
    torch.nn.Module.__init__(wrapped.module)
    runner = runner_of(('cat', 'dog'), ('dog', 'cat'))
    wrapped.module.teachers, wrapped.module.methods = runner.model.teachers, runner.model.methods
    runner.model = wrapped
    with pytest.raises(ValueError, match='other classes'):
        ClassCheckHook().before_train(runner)


def test_a_run_stops_before_the_first_iteration(run_cfg, train, tmp_path):
    iterations = []

    @HOOKS.register_module()
    class Count(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            iterations.append(batch_idx)

    cfg = run_cfg(tmp_path)
    checkpoint = torch.load(cfg.model.teacher.ckpt)
    classes = tuple(reversed([f'class {i}' for i in range(4)]))
    torch.save(dict(checkpoint, meta=dict(dataset_meta=dict(classes=classes))), tmp_path / 'reversed.pth')
    cfg.model.teacher.ckpt = str(tmp_path / 'reversed.pth')
    cfg.custom_hooks.append(dict(type='Count'))
    other = deepcopy(cfg)
    with pytest.raises(ValueError, match='reversed.pth.*Names and order must agree'):
        train(cfg)
    assert not iterations

    other.train_dataloader.dataset.classes = classes
    other.experiment_name += '_with_the_right_names'
    train(other)
    assert iterations == [0, 1, 0, 1]
