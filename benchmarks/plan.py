"""What is measured: pairs of models, the methods that are a row of each table. Only data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional


@dataclass(frozen=True)
class Pair:
    """A student, a teacher, their data and their schedule.

    Attributes:
        title: Of its table.
        task: ``'detection'`` or ``'classification'``.
        config: Of the pair, without a method.
        student: Plain config of the student alone.
        teacher: Plain config of the teacher.
        metric: Name in the log, and the factor that makes percent of it.
        data: Folder below the one with the data, see :mod:`benchmarks.data`.
        options: Changes of all three configs: the schedule.
        splits: What ``val`` and ``test`` are, for the page.
        separated: ``config`` and ``student`` of the same model, separated into student and assistant (ResidualKD).
        without: Rows that do not work here: their methods compare heads that line up.
    """

    title: str
    task: str
    config: str
    student: str
    teacher: str
    metric: tuple[str, float]
    data: str = ''
    options: Mapping[str, Any] = field(default_factory=dict)
    splits: str = 'val and test are splits of their own'
    separated: Optional[tuple[str, str]] = None
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A method, or several at once, with one setting for each task.

    Attributes:
        title: In the table.
        methods: ``'detection'``, ``'classification'`` or the name of a pair (which wins) -> list of configs. A pair
            whose task is not there has no such row.
        variants: What is evaluated beside the student.
        search: Task -> argument of the first method, and the values that are tried beside the row's own.
        published: What the paper reports, with its source.
        ours: Whether the method is one of the three that this project is for.
        separated: Whether the student is the separated one.
        configs: Name of a pair -> config that this row begins with instead: it has other views of the images.
    """

    title: str
    methods: Mapping[str, list[dict]]
    variants: tuple[str, ...] = ()
    search: Mapping[str, tuple[str, tuple]] = field(default_factory=dict)
    published: str = ''
    ours: bool = False
    separated: bool = False
    configs: Mapping[str, str] = field(default_factory=dict)

    def methods_for(self, name: str, pair: Pair) -> Optional[list[dict]]:
        """Returns the methods of this row on a pair, or ``None`` if it has none there."""
        if self.separated and pair.separated is None:
            return None
        return self.methods.get(name, self.methods.get(pair.task))


def _epochs(count: int, schedulers: Any, interval: int) -> dict[str, Any]:
    return dict(train_cfg=dict(max_epochs=count, val_interval=interval), param_scheduler=schedulers)


def _adamw(count: int) -> list[dict]:
    cosine = dict(type='CosineAnnealingLR', eta_min=1e-5, begin=0, end=count, T_max=count, convert_to_iter_based=True)
    return [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200), cosine]


def _sgd(count: int) -> dict:
    return dict(type='CosineAnnealingLR', eta_min=0, begin=0, end=count, T_max=count, convert_to_iter_based=True)


AP, TOP1 = ('coco/bbox_mAP', 100.0), ('accuracy/top1', 1.0)

PAIRS = {
    'bccd': Pair(
        'BCCD, 48 epochs: RetinaNet-R18 with an eighth of the channels, teacher with half',
        'detection',
        'configs/_base_/pairs/retinanet-r18w32_retinanet-r18w8_bccd.py',
        'configs/baselines/retinanet-r18w8_1xb8-48e_bccd.py',
        'configs/baselines/retinanet-r18w32_1xb8-affine-96e_bccd.py',
        AP,
    ),
    'cifar10-tenth': Pair(
        'A tenth of CIFAR-10, 60 epochs: ResNet-18 with an eighth of the channels, teacher with half',
        'classification',
        'configs/_base_/pairs/resnet18w32_resnet18w8_cifar10.py',
        'configs/baselines/resnet18w8_1xb128-30e_cifar10.py',
        'configs/baselines/resnet18w32_1xb128-30e_cifar10.py',
        TOP1,
        'cifar10-tenth',
        {**_epochs(60, _sgd(60), 20), 'val_dataloader': dict(dataset=dict(data_prefix='val'))},
        'training on the first 500 images of each class; val are the next 500, test all 10,000 test images',
        (
            'configs/residual_kd/residual-kd_resnet18w32_resnet18w8-pair_1xb128-30e_cifar10.py',
            'configs/baselines/resnet18w8-pair_1xb128-30e_cifar10.py',
        ),
    ),
    'bccd-gfl': Pair(
        'BCCD, 48 epochs, unequal heads: GFL-R18 with an eighth of the channels, taught by RetinaNet',
        'detection',
        'configs/_base_/pairs/retinanet-r18w32_gfl-r18w8_bccd.py',
        'configs/baselines/gfl-r18w8_1xb8-48e_bccd.py',
        'configs/baselines/retinanet-r18w32_1xb8-affine-96e_bccd.py',
        AP,
        without=('kd', 'crosskd', 'semi-online-kd'),
    ),
    'deeppcb': Pair(
        'DeepPCB, 12 epochs: RetinaNet-R18 with an eighth of the channels, teacher with half',
        'detection',
        'configs/_base_/pairs/retinanet-r18w32_retinanet-r18w8_deeppcb.py',
        'configs/baselines/retinanet-r18w8_1xb8-24e_deeppcb.py',
        'configs/baselines/retinanet-r18w32_1xb8-36e_deeppcb.py',
        AP,
        options=_epochs(12, _adamw(12), 4),
    ),
}


def _both(detection: Any, classification: Any = None) -> dict[str, list[dict]]:
    given = dict(detection=detection, classification=classification)
    return {task: cfg if isinstance(cfg, list) else [cfg] for task, cfg in given.items() if cfg is not None}


def _same(cfg: dict) -> dict[str, list[dict]]:
    return _both(cfg, cfg)


def _search(detection: Any = None, classification: Any = None) -> dict[str, tuple[str, tuple]]:
    given = dict(detection=detection, classification=classification)
    return {task: (argument[0], tuple(argument[1:])) for task, argument in given.items() if argument is not None}


def _images(**cfg: Any) -> dict[str, list[dict]]:
    return _both(None, {**cfg, 'type': f'mmrkd.{cfg["type"]}'})


TWO_VIEWS = {'cifar10-tenth': 'configs/crld/crld_resnet18w32_resnet18w8_1xb128-30e_cifar10.py'}

ROWS = {
    'alone': Row('student alone', _both([], [])),
    'era': Row(
        'ERA, no option given',
        _same(dict(type='mmrkd.ERA')),
        ('integrated',),
        _search(('w_twi', 0.5, 8.0), ('w_twi', 0.02, 0.5)),
        ours=True,
    ),
    'era-light': Row(
        'ERA, branches of 1x1 kernels, judged in every fourth step',
        _both(dict(type='mmrkd.ERA', kernel_size=1, twi_every=4)),
        ('integrated',),
        ours=True,
    ),
    'semi-online-kd': Row(
        'SemiOnlineKD, no option given',
        _same(dict(type='mmrkd.SemiOnlineKD')),
        ('bridge',),
        _search(('w_bridge_student', 0.05, 0.8), ('w_bridge_student', 0.3, 3.0)),
        ours=True,
    ),
    'separated': Row('separated student alone', _both([], []), separated=True),
    'residual-kd': Row('ResidualKD, no option given', _same(dict(type='mmrkd.ResidualKD')), ours=True, separated=True),
    'fitnets': Row(
        'FitNets, the feature hint',
        _both(dict(type='mmrkd.FitNets'), dict(type='mmrkd.FitNets', w_feat=5.0)),
        search=_search(('w_feat', 0.3, 3.0), ('w_feat', 1.0, 25.0)),
    ),
    'at': Row('AttentionTransfer', _same(dict(type='mmrkd.AttentionTransfer'))),
    'kd': Row(
        'KD',
        _both(dict(type='mmrkd.KD', w_kd=0.2, w_box=20.0), dict(type='mmrkd.KD')),
        search=_search(('w_kd', 0.05, 0.8), ('w_kd', 0.3, 3.0)),
    ),
    'dkd': Row('DKD', _both(None, dict(type='mmrkd.DKD')), search=_search(None, ('beta', 2.0, 4.0))),
    'dist': Row('DIST', _both(None, dict(type='mmrkd.DIST')), search=_search(None, ('tau', 2.0, 4.0))),
    'wttm': Row('WTTM', _both(None, dict(type='mmrkd.WTTM')), search=_search(None, ('w_ttm', 1.0, 16.0))),
    'gdkd': Row('GDKD', _both(None, dict(type='mmrkd.GDKD')), search=_search(None, ('k', 3, 4))),
    'crld': Row('CRLD, two views', _images(type='CRLD', w_ce=1.0, w_within=2.0, w_cross=0.5), configs=TWO_VIEWS),
    'crld-control': Row(
        'its control: the labels of both views alone',
        _images(type='CRLD', w_ce=1.0, w_within=0.0, w_cross=0.0),
        configs=TWO_VIEWS,
    ),
    'r2kd': Row('R2KD', _images(type='R2KD', w_value=2.0, prune_rate=0.1, teacher_share=0.7, augment='cutmix')),
    'dskd': Row('DSKD', _images(type='DSKD')),
    'sskd': Row('SSKD', _images(type='SSKD', w_ce=0.1, w_kd=0.9, w_tf=2.7, w_ss=10.0)),
    'tred': Row('TRED, the teacher as source model', _images(type='TRED', w_reg=1.0, w_mmd=0.1)),
    'cwd': Row('CWD', _both(dict(type='mmrkd.CWD')), search=_search(('w_cwd', 3.0, 30.0))),
    'pkd': Row('PKD', _both(dict(type='mmrkd.PKD')), search=_search(('w_pkd', 3.0, 30.0))),
    'mgd': Row('MGD', _same(dict(type='mmrkd.MGD')), search=_search(('w_mgd', 2e-4, 2e-3), ('w_mgd', 7e-4, 7e-3))),
    'fgd': Row('FGD', _both(dict(type='mmrkd.FGD'))),
    'crosskd': Row('CrossKD', _both(dict(type='mmrkd.CrossKD', layer=1)), search=_search(('w_cls', 0.3, 3.0))),
}

# The same features, compared without a number that anybody tuned: see docs/balance.md.
for _name, _kind, _tasks in (
    ('fitnets', 'FitNets', ('detection', 'classification')),
    ('cwd', 'CWD', ('detection',)),
    ('pkd', 'PKD', ('detection',)),
    ('mgd', 'MGD', ('detection', 'classification')),
    ('fgd', 'FGD', ('detection',)),
):
    _methods = {task: [dict(type=f'mmrkd.{_kind}', balance=0.1)] for task in _tasks}
    ROWS[f'{_name}-balance'] = Row(f'{_kind}, `balance=0.1`', _methods)
