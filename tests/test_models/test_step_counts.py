"""What a training step does, method by method: passes and waits for the device, so that none creeps in.

The table is what a step may cost. A method that needs more than it says here costs everyone who trains with it. The
waits of mmdet itself are those of the plain student, and 9 more for each further loss of a head (its positives): the
36 of the assignment are not paid again.
"""

import importlib.util

import pytest
import torch

import mmrkd
from mmrkd.engine import step_counts
from mmrkd.engine.compose import method_names
from mmrkd.engine.step_counts import OperatorCounter, count_step
from mmrkd.models import DistillMethod, FrozenTeacher
from mmrkd.registry import MODELS
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    pose_batch,
    save_random_teacher,
    segmentation_batch,
    tiny_classifier,
    tiny_gfl,
    tiny_pose,
    tiny_retinanet,
    tiny_segmentor,
)

# A student with an assistant, as ResidualKD needs it, and a head with distributions of boxes, as LD does.
STUDENTS = dict(classifier=paired(tiny_classifier(8), 6, 3), gfl=paired(tiny_gfl(8), 6, 3), retinanet=tiny_retinanet())
TEACHERS = dict(classifier=tiny_classifier(12), gfl=tiny_gfl(12, 24), retinanet=tiny_retinanet(12, 24))
ARGUMENTS = dict(
    gdkd=dict(k=2),
    crosskd=dict(layer=1),
    dskd=dict(student_layers=[f'backbone.student.layer{i}' for i in (1, 2, 3)]),
    rdd=dict(min_kept=0.1, combination='or'),  # of small images, and of teachers that know nothing
    l2sp=dict(parts='head'),
)
DRAWN = 'models/methods/batch_augments.py'  # numbers on the host, more for some augmentations: no device is waited for
ABSENT = () if importlib.util.find_spec('mmpose') else ('dwpose',)  # methods for models of an extra
KINDS = {name.lower(): kind for name, kind in MODELS.module_dict.items() if isinstance(kind, type)}
METHODS = [n for n in method_names() if KINDS[n].__module__.startswith('mmrkd') and n not in ABSENT]
VARIANTS = {'era, all': ('era', dict(twi_on='all')), 'era, none': ('era', dict(twi_on='none'))}

# Passes of: the student's body, its head, the teacher's body, its head. Further losses of a head that mmdet computes.
HINT, OUTPUTS = (1, 1, 1, 0, 0), (1, 1, 1, 1, 0)
TABLE = {
    'classifier': {
        'attentiontransfer': HINT,
        'crld': (2, 2, 2, 2, 0),  # two views of each image
        'deepmutuallearning': (1, 1, 0, 0, 0),  # the peer is its own
        'dist': OUTPUTS,
        'dkd': OUTPUTS,
        'dskd': OUTPUTS,
        'era': (1, 1, 1, 6, 0),  # z_t, and h_0 .. h_4
        'era, all': (1, 1, 1, 6, 0),
        'era, none': OUTPUTS,
        'fitnets': HINT,
        'gdkd': OUTPUTS,
        'kd': OUTPUTS,
        'l2sp': (1, 1, 0, 0, 0),
        'mgd': HINT,
        'pkd': HINT,
        'r2kd': (2, 2, 4, 4, 0),  # augmented images too, and a pruned copy of the teacher for both
        'residualkd': HINT,
        'semionlinekd': OUTPUTS,
        'sskd': (1, 4, 4, 4, 0),  # each image in four positions, which the student sees in one pass
        'tred': HINT,
        'wttm': OUTPUTS,
    },
    'gfl': {
        'attentiontransfer': HINT,
        'crosskd': (1, 1, 1, 2, 0),
        'cwd': HINT,
        'deepmutuallearning': (1, 1, 0, 0, 1),
        'dist': OUTPUTS,
        'era': (1, 1, 1, 2, 1),
        'era, all': (1, 1, 1, 4, 3),
        'era, none': OUTPUTS,
        'fgd': HINT,
        'fitnets': HINT,
        'kd': OUTPUTS,
        'ld': OUTPUTS,
        'mgd': HINT,
        'pkd': HINT,
        'residualkd': HINT,
        'semionlinekd': (1, 1, 1, 1, 1),
    },
}
TABLE['retinanet'] = {name: row for name, row in TABLE['gfl'].items() if name not in ('ld', 'residualkd')}
# Of the two other branches decode and auxiliary head, and the loss of the mixture.
FOR_SEGMENTORS = {'onlineensemble': (1, 1, 0, 0, 5), 'rdd': OUTPUTS}
PLAIN = dict(classifier=0, gfl=45, retinanet=45, segmentor=4, pose=0)  # waits of the student's own losses
if not ABSENT:
    STUDENTS['pose'], TEACHERS['pose'] = tiny_pose('coordinates'), tiny_pose('coordinates', width=12)
    TABLE['pose'] = {'dwpose': OUTPUTS, 'era': (1, 1, 1, 2, 0), 'fitnets': HINT, 'kd': OUTPUTS}
FURTHER = 9  # of the losses of a further head on two images and three levels
SEGMENTING = 2  # the same of a head of a segmentor
BATCHES = dict(classifier=classification_batch, gfl=detection_batch, retinanet=detection_batch)
if importlib.util.find_spec('mmseg') is not None:
    STUDENTS['segmentor'], TEACHERS['segmentor'] = tiny_segmentor(), tiny_segmentor(12, 12)
    TABLE['segmentor'], BATCHES['segmentor'] = {'kd': OUTPUTS, **FOR_SEGMENTORS}, segmentation_batch


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')
    cfgs = enumerate(TEACHERS.items())
    return {kind: FrozenTeacher(**save_random_teacher(cfg, folder, seed=seed)) for seed, (kind, cfg) in cfgs}


def counted(kind, teachers, methods):
    distiller = build_distiller(STUDENTS[kind], teachers[kind], methods, seed=3).train()
    batch = pose_batch(distiller.student.head.decoder) if kind == 'pose' else BATCHES[kind]()
    inputs, samples = model_inputs(distiller, batch)
    further = dict(views=(inputs.flip(3),)) if any(method.views for method in distiller.methods.values()) else {}
    return count_step(distiller, lambda: distiller(inputs, samples, mode='loss', **further))


def row_of(kind, name, teachers):
    method, arguments = VARIANTS.get(name, (name, ARGUMENTS.get(name, {})))
    counts, counter = counted(kind, teachers, [dict(type=f'mmrkd.{KINDS[method].__name__}', **arguments)])
    drawn = sum(number for place, number in counter.waits.items() if place.startswith(DRAWN))
    assert counts.own_waits == drawn, f'{name} waits for the device: {dict(counter.waits)}'
    further, rest = divmod(counts.waits - drawn - PLAIN[kind], SEGMENTING if kind == 'segmentor' else FURTHER)
    assert rest == 0, f'{name}: {counts.waits} waits'
    return counts.student_bodies, counts.student_heads, counts.teacher_bodies, counts.teacher_heads, further


@pytest.mark.parametrize('kind', TABLE)
def test_a_step_costs_what_the_table_says(kind, teachers):
    found = {name: row_of(kind, name, teachers) for name in TABLE[kind]}
    assert found == TABLE[kind]


def test_every_method_of_the_registry_is_in_the_table():
    named = {name for rows in (*TABLE.values(), FOR_SEGMENTORS) for name in rows if name not in VARIANTS}
    assert named == set(METHODS)


def test_several_methods_share_the_passes(teachers):
    methods = [dict(type=f'mmrkd.{name}') for name in ('KD', 'FitNets', 'ERA', 'SemiOnlineKD')]
    counts, _ = counted('retinanet', teachers, methods)
    assert (counts.student_bodies, counts.student_heads, counts.teacher_bodies) == (1, 1, 1)
    assert counts.teacher_heads == 2, 'the outputs that three of them compare, and one sum of ERA'
    assert (counts.own_waits, counts.waits) == (0, 45 + 2 * FURTHER)


def test_a_method_that_is_off_costs_nothing(teachers):
    counts, _ = counted('retinanet', teachers, [dict(type='mmrkd.KD', w_kd=0)])
    plain, _ = counted('retinanet', teachers, [])
    assert (counts.teacher_bodies, counts.teacher_heads) == (0, 0) and counts.operators == plain.operators


class Waiting(DistillMethod):
    """Waits four times; twice it does not."""

    def losses(self, student, teacher, samples):
        feat = student.feats[0].detach()
        mask = feat > 0
        if feat.sum() > 0 and feat.max().item() > 0:
            feat[mask] = 0
        chosen = feat[mask].sum() + feat[torch.tensor([0])].sum() + feat.where(mask, 0).sum()
        return dict(loss_wait=student.feats[0].sum() * 0 + chosen)


def test_a_wait_is_seen_with_its_place(teachers, monkeypatch):
    """The counter takes these tests for a part of the package."""
    monkeypatch.setattr(step_counts, 'PACKAGE', __file__.rpartition('/')[0])
    counts, counter = counted('retinanet', teachers, [Waiting()])
    assert counts.own_waits == 4 and all(place.startswith('test_step_counts.py:') for place in counter.waits)


def test_what_other_packages_do_is_not_ours(teachers):
    with OperatorCounter() as counter:
        assert torch.ones(3).sum().item() == 3
    assert counter.other_waits == 1 and not counter.waits and counter.calls >= 3
    assert step_counts.PACKAGE == mmrkd.__path__[0]
