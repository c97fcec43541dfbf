from copy import deepcopy

import pytest
from mmengine.config import Config

from mmrkd.engine import prepare_config
from mmrkd.engine.prepare import check_data, is_distillation

HOOKS = ['SplitCheckpointHook', 'MergeCheckpointHook', 'ClassCheckHook', 'PhaseHook', 'DiagnosisHook']
HOOKS = [f'mmrkd.{name}' for name in HOOKS]


def distillation(**parts):
    return Config(dict(model=dict(type='mmrkd.Distiller', student=dict(), teacher=dict()), **parts))


@pytest.fixture
def data(tmp_path):
    """A dataset that is there."""
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations' / 'train.json').write_text('{}')
    (tmp_path / 'images').mkdir()
    return dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
    )


class TestHooks:
    def test_a_distillation_gets_them(self):
        cfg = distillation()
        assert prepare_config(cfg) is cfg
        assert [hook['type'] for hook in cfg.custom_hooks] == HOOKS

    def test_they_come_after_those_of_the_user_and_once(self):
        own = [dict(type='EMAHook', momentum=0.5), dict(type='mmrkd.ClassCheckHook', priority='LOW')]
        cfg = distillation(custom_hooks=deepcopy(own))
        prepare_config(cfg)
        expected = [*own, *(dict(type=name) for name in HOOKS if name != 'mmrkd.ClassCheckHook')]
        assert cfg.custom_hooks == expected
        prepare_config(cfg)
        assert cfg.custom_hooks == expected

    def test_hooks_that_are_none_are_no_hooks(self):
        cfg = distillation(custom_hooks=None)
        assert len(prepare_config(cfg).custom_hooks) == len(HOOKS)

    def test_a_plain_config_is_not_touched(self):
        cfg = Config(dict(model=dict(type='RetinaNet'), custom_hooks=[dict(type='EMAHook')], train_dataloader=None))
        before = cfg.to_dict()
        assert prepare_config(cfg).to_dict() == before
        cfg = Config(dict(model=dict(type='RetinaNet')))
        assert 'custom_hooks' not in prepare_config(cfg)

    @pytest.mark.parametrize(
        'name, expected',
        [('mmrkd.Distiller', True), ('Distiller', True), ('RetinaNet', False), ('my.Distiller2', False)],
    )
    def test_what_a_distillation_is(self, name, expected):
        assert is_distillation(Config(dict(model=dict(type=name)))) is expected

    def test_a_pure_python_config_names_the_class_itself(self, tmp_path):
        (tmp_path / 'cfg.py').write_text(
            'from mmengine.config import read_base\n'
            'with read_base():\n    from .base import *\n'
            'from mmrkd.models import Distiller\n'
            'model = dict(type=Distiller, student=dict(), teacher=dict())\n'
        )
        (tmp_path / 'base.py').write_text('a = 1\n')
        cfg = prepare_config(Config.fromfile(tmp_path / 'cfg.py'))
        assert is_distillation(cfg)
        assert [hook['type'] for hook in cfg.custom_hooks] == HOOKS


class TestData:
    def test_data_that_is_there_passes(self, data):
        prepare_config(distillation(train_dataloader=dict(dataset=data), val_dataloader=None, test_dataloader=dict()))

    def test_an_annotation_file_that_is_not_there_is_named(self, data, tmp_path):
        data['ann_file'] = 'annotations/val.json'
        with pytest.raises(FileNotFoundError) as error:
            prepare_config(distillation(val_dataloader=dict(dataset=data)))
        message = str(error.value)
        assert f'val_dataloader: {tmp_path}/annotations/val.json' in message
        assert 'images' not in message
        assert 'data_root' in message and 'MMRKD_DATA' in message

    def test_everything_that_is_missing_is_listed_at_once(self, data, tmp_path):
        other = dict(data, data_root=str(tmp_path / 'nowhere'))
        with pytest.raises(FileNotFoundError) as error:
            check_data(distillation(train_dataloader=dict(dataset=other), test_dataloader=dict(dataset=other)))
        lines = str(error.value).splitlines()[1:-1]
        assert [line.strip() for line in lines] == [
            f'{loader}: {tmp_path}/nowhere/{name}'
            for loader in ('train_dataloader', 'test_dataloader')
            for name in ('annotations/train.json', 'images/')
        ]

    def test_a_plain_config_is_checked_too(self, data):
        data['ann_file'] = 'no.json'
        with pytest.raises(FileNotFoundError, match='no.json'):
            prepare_config(Config(dict(model=dict(type='RetinaNet'), train_dataloader=dict(dataset=data))))

    @pytest.mark.parametrize(
        'wrap',
        [
            lambda d: dict(type='RepeatDataset', times=3, dataset=d),
            lambda d: dict(type='ConcatDataset', datasets=[d, d]),
            lambda d: dict(type='MultiImageMixDataset', dataset=dict(type='ClassBalancedDataset', dataset=d)),
        ],
    )
    def test_wrappers_are_looked_through(self, data, wrap):
        check_data(distillation(train_dataloader=dict(dataset=wrap(data))))
        with pytest.raises(FileNotFoundError, match='no.json'):
            check_data(distillation(train_dataloader=dict(dataset=wrap(dict(data, ann_file='no.json')))))

    def test_an_absolute_annotation_file(self, data, tmp_path):
        data['ann_file'] = str(tmp_path / 'annotations' / 'train.json')
        check_data(distillation(train_dataloader=dict(dataset=data)))

    def test_a_dataset_of_mmpretrain(self, tmp_path):
        (tmp_path / 'train').mkdir()
        dataset = dict(type='ImageNet', data_root=str(tmp_path), data_prefix='train')
        check_data(distillation(train_dataloader=dict(dataset=dataset)))
        with pytest.raises(FileNotFoundError, match='train_dataloader: .*/val'):
            check_data(distillation(train_dataloader=dict(dataset=dict(dataset, data_prefix='val'))))

    @pytest.mark.parametrize(
        'dataset',
        [
            dict(type='CocoDataset', data_root='s3://bucket/coco/', ann_file='a.json', data_prefix=dict(img='i/')),
            dict(type='TinyData', kind='classifier'),
            dict(type='CIFAR100', data_root='data/no_such_folder', split='train'),
            dict(type='mmpretrain.CIFAR10', data_root='data/no_such_folder', split='train'),
        ],
        ids=['remote', 'in memory', 'downloaded when needed', 'scope'],
    )
    def test_what_cannot_be_looked_for(self, dataset):
        check_data(distillation(train_dataloader=dict(dataset=dataset)))


def test_a_config_without_a_checkpoint_hook_saves_each_epoch_as_in_mmengine():
    cfg = prepare_config(Config(dict(model=dict(type='mmrkd.Distiller'), default_hooks=dict())))
    assert cfg.default_hooks.checkpoint == dict(type='mmrkd.ResumableCheckpointHook', interval=1)
