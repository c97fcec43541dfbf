"""Configs with one mistake each: the examination gives it its name, and says nothing else."""

import json
import os
import pickle
from copy import deepcopy
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS as MMENGINE_MODELS

from mmrkd.doctor import FAULTS, FaultError, examine, train_checked
from mmrkd.engine.compose import compose
from mmrkd.models import DistillMethod
from mmrkd.registry import MODELS
from mmrkd.testing import paired, save_random_teacher, tiny_classifier, tiny_retinanet

ROOT = Path(__file__).resolve().parents[2]
SEEDED = {}
WARNED = {}


@MODELS.register_module(force=True)
class MisspeltTap(DistillMethod):
    """Wants what is not there."""

    student_taps = ('backbone.layer5',)

    def losses(self, student, teacher, samples):
        return {}


@MODELS.register_module(force=True)
class Constant(DistillMethod):
    """A term that teaches nothing."""

    def losses(self, student, teacher, samples):
        return {'loss_constant': student.feats[0].new_ones(())}


def seeded(*names):
    """Registers a function that makes one mistake in a config, and the names of the faults that it must give."""

    def register(mistake):
        SEEDED[mistake.__name__] = (mistake, set(names))
        return mistake

    return register


def warned(*names):
    """The same for what is only a warning."""

    def register(mistake):
        WARNED[mistake.__name__] = (mistake, set(names))
        return mistake

    return register


def everywhere(cfg, change):
    for name in ('train_dataloader', 'val_dataloader'):
        change(cfg[name].dataset)


@seeded('class-count')
def student_with_other_classes(cfg, folder):
    cfg.model.student.bbox_head.num_classes = 3
    cfg.model.methods = [dict(type='mmrkd.ERA')]


@seeded('class-count')
def data_with_fewer_classes(cfg, folder):
    everywhere(cfg, lambda data: data.update(metainfo=dict(classes=('shade 0', 'shade 1'))))


@seeded('class-count')
def teacher_checkpoint_of_other_classes(cfg, folder):
    cfg.model.teacher.ckpt = save_random_teacher(tiny_retinanet(16, 24, num_classes=7), folder)['ckpt']


@seeded('class-names')
def permuted_class_names(cfg, folder):
    everywhere(cfg, lambda data: data.update(metainfo=dict(classes=data.metainfo.classes[::-1])))


@seeded('teacher-checkpoint-mismatch')
def checkpoint_of_another_architecture(cfg, folder):
    cfg.model.teacher.ckpt = save_random_teacher(tiny_classifier(), folder)['ckpt']


@seeded('teacher-checkpoint-mismatch')
def checkpoint_of_another_width(cfg, folder):
    cfg.model.teacher.ckpt = save_random_teacher(tiny_retinanet(12, 24), folder)['ckpt']


@seeded('teacher-checkpoint-unreadable')
def truncated_checkpoint(cfg, folder):
    content = Path(cfg.model.teacher.ckpt).read_bytes()
    cfg.model.teacher.ckpt = str(folder / 'short.pth')
    Path(cfg.model.teacher.ckpt).write_bytes(content[: len(content) // 2])


@seeded('teacher-checkpoint-unreadable')
def page_of_an_error_instead_of_a_checkpoint(cfg, folder):
    cfg.model.teacher.ckpt = str(folder / 'page.pth')
    Path(cfg.model.teacher.ckpt).write_text('<html>404</html>')


@seeded('teacher-checkpoint-unreadable')
def checkpoint_without_weights(cfg, folder):
    cfg.model.teacher.ckpt = str(folder / 'empty.pth')
    torch.save(dict(meta=dict(epoch=3)), cfg.model.teacher.ckpt)


class Evil:
    def __reduce__(self):
        return os.mkdir, ('it_ran',)


@seeded('teacher-checkpoint-unsafe')
def checkpoint_that_runs_code(cfg, folder):
    cfg.model.teacher.ckpt = str(folder / 'evil.pth')
    torch.save(dict(state_dict=dict(a=torch.ones(1)), meta=Evil()), cfg.model.teacher.ckpt)


@seeded('teacher-checkpoint-unsafe')
def pickle_that_runs_code(cfg, folder):
    cfg.model.teacher.ckpt = str(folder / 'evil.pkl')
    Path(cfg.model.teacher.ckpt).write_bytes(pickle.dumps(Evil()))


@seeded('teacher-checkpoint-missing')
def checkpoint_that_is_not_there(cfg, folder):
    cfg.model.teacher.ckpt = 'nowhere.pth'


@seeded('teacher-checkpoint-missing')
def no_checkpoint(cfg, folder):
    del cfg.model.teacher['ckpt']


@seeded('teacher-nan')
def teacher_with_nan(cfg, folder):
    checkpoint = torch.load(cfg.model.teacher.ckpt)
    checkpoint['state_dict']['neck.fpn_convs.0.conv.weight'][0, 0] = float('nan')
    cfg.model.teacher.ckpt = str(folder / 'nan.pth')
    torch.save(checkpoint, cfg.model.teacher.ckpt)


@seeded('teacher-untrained')
def teacher_that_was_never_trained(cfg, folder):
    cfg.model.teacher.ckpt = save_random_teacher(tiny_retinanet(16, 24), folder)['ckpt']


@seeded('teacher-untrained')
def teacher_that_finds_nothing(cfg, folder):
    cfg.model.teacher.cfg = tiny_retinanet(16, 24)
    cfg.model.teacher.cfg.test_cfg.score_thr = 1.0


@seeded('swapped', 'teacher-untrained')
def student_and_teacher_swapped(cfg, folder):
    cfg.model.student, teacher = tiny_retinanet(16, 24), tiny_retinanet()
    cfg.model.teacher = save_random_teacher(teacher, folder)


@seeded('swapped')
def configs_swapped_and_checkpoint_not(cfg, folder):
    cfg.model.student, cfg.model.teacher.cfg = tiny_retinanet(16, 24), tiny_retinanet()


@seeded('teacher-config')
def teacher_config_that_is_not_there(cfg, folder):
    cfg.model.teacher.cfg = 'nowhere.py'


@seeded('teacher-config')
def teacher_config_that_is_not_python(cfg, folder):
    (folder / 'broken.py').write_text('model = dict(type=\n')
    cfg.model.teacher.cfg = str(folder / 'broken.py')


@seeded('teacher-config', 'teacher-checkpoint-missing')
def no_teacher(cfg, folder):
    del cfg.model['teacher']


@seeded('kind-mismatch')
def detector_that_learns_from_a_classifier(cfg, folder):
    cfg.model.teacher = save_random_teacher(tiny_classifier(), folder)


@seeded('student-config')
def misspelt_backbone(cfg, folder):
    cfg.model.student.backbone.type = 'ResNot'


@seeded('student-config')
def unknown_argument_of_the_student(cfg, folder):
    cfg.model.student.neck.in_chanels = 3


@seeded('student-kind')
def student_that_is_a_backbone(cfg, folder):
    cfg.model.student = dict(type='mmdet.ResNet', depth=18)


@seeded('student-frozen')
def student_frozen_all(cfg, folder):
    base = MMENGINE_MODELS.get('mmdet.RetinaNet')

    class FrozenRetinaNet(base):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.requires_grad_(False)

    MMENGINE_MODELS.register_module(module=FrozenRetinaNet)
    cfg.model.student.type = 'mmengine.FrozenRetinaNet'


@seeded('init-student')
def misspelt_part_to_inherit(cfg, folder):
    cfg.model.init_student = 'nekc'


@seeded('init-student')
def part_to_inherit_of_other_shapes(cfg, folder):
    cfg.model.init_student = 'neck'


@seeded('student-weights')
def pretrained_weights_that_are_not_there(cfg, folder):
    cfg.model.student.backbone.init_cfg = dict(type='Pretrained', checkpoint='nowhere.pth')


@seeded('student-weights')
def checkpoint_to_start_from_that_is_not_there(cfg, folder):
    cfg.load_from = 'nowhere.pth'


@seeded('no-common-stride')
def stride_gap(cfg, folder):
    cfg.model.student.neck.update(start_level=1, end_level=2, num_outs=2)
    teacher = tiny_retinanet(16, 24)
    teacher['neck'].update(start_level=3, num_outs=1)
    cfg.model.teacher = save_random_teacher(teacher, folder)


@seeded('tap-not-found')
def misspelt_tap(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.MisspeltTap')]


@seeded('method-unknown')
def misspelt_method(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNet')]


@seeded('method-argument')
def misspelt_argument_of_a_method(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNets', w_faet=1.0)]


@seeded('method-argument')
def argument_out_of_range(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.ERA', tau=0)]


@seeded('method-argument')
def methods_that_are_no_list(cfg, folder):
    cfg.model.methods = dict(type='mmrkd.FitNets')


@seeded('teacher-config')
def teacher_that_is_only_a_path(cfg, folder):
    cfg.model.teacher = cfg.model.teacher.cfg


@seeded('method-argument')
def text_in_the_place_of_a_number(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNets', w_feat='0.5')]


@seeded('method-argument')
def share_of_nothing(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNets', balance=0.0)]


@seeded('method-argument')
def automatic_where_there_is_no_weight(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.ERA', tau='auto')]


@seeded('distiller-argument')
def misspelt_argument_of_the_distiller(cfg, folder):
    cfg.model.method = cfg.model.pop('methods')


@seeded('distiller-argument')
def argument_of_the_distiller_of_another_kind(cfg, folder):
    cfg.model.on_nonfinite = True


@seeded('teacher-argument', 'teacher-checkpoint-missing')
def misspelt_argument_of_the_teacher(cfg, folder):
    cfg.model.teacher.chkpt = cfg.model.teacher.pop('ckpt')


@seeded('teacher-argument')
def scope_beside_the_teacher(cfg, folder):
    cfg.model.teacher['_scope_'] = 'mmdet'


@seeded('scope')
def scope_that_is_given_twice(cfg, folder):
    cfg.model.student.update(type='mmdet.RetinaNet', _scope_='mmpretrain')


@seeded('train-length')
def training_of_no_epoch(cfg, folder):
    cfg.train_cfg.max_epochs = 0


@seeded('train-length')
def training_of_half_an_iteration(cfg, folder):
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=0.5)


@seeded('no-method')
def no_method(cfg, folder):
    cfg.model.methods = []


@seeded('zero-weight')
def zero_weight(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNets', w_feat=0.0)]


@seeded('bad-weight')
def negative_weight(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNets', w_feat=-1.0)]


@seeded('heads-differ')
def logits_of_heads_that_differ(cfg, folder):
    teacher = tiny_retinanet(16, 24)
    teacher['bbox_head']['anchor_generator']['ratios'] = [1.0]
    cfg.model.teacher = save_random_teacher(teacher, folder)
    cfg.model.methods = [dict(type='mmrkd.ERA', w_kd=1.0, w_twi=0.0)]


@seeded('no-gradient')
def method_without_a_gradient(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.Constant')]


@seeded('loss-not-finite')
def loss_that_overflows(cfg, folder):
    cfg.model.methods = [dict(type='mmrkd.FitNets', w_feat=1e39)]


@seeded('learning-rate')
def learning_rate_that_is_nan(cfg, folder):
    cfg.optim_wrapper.optimizer.lr = float('nan')


@seeded('schedule-spent')
def second_cosine_that_goes_on_from_the_end_of_the_first(cfg, folder):
    cfg.model.student = Config(dict(model=paired(tiny_retinanet(), 6, 3))).model
    cfg.model.methods = [dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(6, 12))]
    cosine = dict(type='CosineAnnealingLR', eta_min=1e-6, convert_to_iter_based=True)
    cfg.param_scheduler = [dict(cosine, begin=begin, end=end, T_max=end - begin) for begin, end in ((0, 12), (12, 16))]


@seeded('optimizer')
def misspelt_schedule_of_a_method_with_phases(cfg, folder):
    second_cosine_that_goes_on_from_the_end_of_the_first(cfg, folder)
    cfg.param_scheduler[1].type = 'CosineRestratLR'


@seeded('optimizer')
def misspelt_optimiser(cfg, folder):
    cfg.optim_wrapper.optimizer.type = 'SDG'


@seeded('nothing-trained')
def student_without_a_learning_rate(cfg, folder):
    cfg.optim_wrapper.paramwise_cfg = dict(custom_keys={'student': dict(lr_mult=0.0)})


@seeded('batch-size')
def batch_of_no_image(cfg, folder):
    cfg.train_dataloader.batch_size = 0


@seeded('batch-size')
def batch_larger_than_the_training_set(cfg, folder):
    cfg.train_dataloader.update(batch_size=9, drop_last=True)


@seeded('missing-annotations')
def annotation_file_that_is_not_there(cfg, folder):
    cfg.train_dataloader.dataset.ann_file = 'train.json'


@seeded('missing-annotations')
def annotation_file_of_the_metric_that_is_not_there(cfg, folder):
    cfg.val_evaluator.ann_file = 'val.json'


@seeded('missing-images')
def folder_of_images_that_is_not_there(cfg, folder):
    cfg.train_dataloader.dataset.data_prefix.img = 'pictures/'


@seeded('missing-images')
def images_that_are_not_there(cfg, folder):
    (folder / 'empty').mkdir()
    cfg.train_dataloader.dataset.data_prefix.img = str(folder / 'empty')


@seeded('data-unreadable')
def truncated_annotations(cfg, folder):
    content = Path(cfg.val_evaluator.ann_file).read_text()
    (folder / 'short.json').write_text(content[: len(content) // 2])
    cfg.train_dataloader.dataset.ann_file = str(folder / 'short.json')


@seeded('empty-data')
def annotations_without_images(cfg, folder):
    (folder / 'none.json').write_text(json.dumps(dict(images=[], annotations=[], categories=[])))
    cfg.train_dataloader.dataset.update(ann_file=str(folder / 'none.json'), serialize_data=True)


@seeded('empty-data')
def class_names_that_the_annotations_do_not_have(cfg, folder):
    cfg.train_dataloader.dataset.metainfo.classes = ('a', 'b', 'c', 'd')


@seeded('data-unreadable')
def dataloader_with_an_option_that_does_not_fit(cfg, folder):
    cfg.train_dataloader.persistent_workers = True  # needs workers


@seeded('data-unreadable')
def no_training_data(cfg, folder):
    cfg.train_dataloader = None


@seeded('step-failed')
def training_without_annotations(cfg, folder):
    cfg.train_dataloader.dataset.pipeline.pop(1)


@seeded('evaluation-failed')
def validation_without_the_scale(cfg, folder):
    cfg.val_dataloader.dataset.pipeline[-1].meta_keys = ('img_id',)


@seeded('not-a-distillation')
def plain_config(cfg, folder):
    cfg.model = cfg.model.student


def rewrite(cfg, folder, change, **evaluator):
    """Gives training and validation another annotation file."""
    content = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    change(content)
    path = folder / 'rewritten.json'
    path.write_text(json.dumps(content))
    everywhere(cfg, lambda data: data.update(ann_file=str(path)))


def of_each_box(change):
    def on_content(content):
        for annotation in content['annotations']:
            annotation['bbox'] = change(*annotation['bbox'])

    return on_content


@seeded('boxes-format')
def boxes_as_corners(cfg, folder):
    rewrite(cfg, folder, of_each_box(lambda x, y, w, h: [x, y, x + w, y + h]))


@seeded('boxes-format', 'data-unreadable')
def boxes_of_three_numbers(cfg, folder):
    rewrite(cfg, folder, of_each_box(lambda x, y, w, h: [x, y, w]))


@seeded('boxes-not-finite', 'empty-data')
def boxes_that_are_nan(cfg, folder):
    rewrite(cfg, folder, of_each_box(lambda x, y, w, h: [float('nan'), y, w, h]))


@seeded('boxes-without-area', 'empty-data')
def boxes_in_shares_of_the_image(cfg, folder):
    rewrite(cfg, folder, of_each_box(lambda *box: [side / 96 for side in box]))


@seeded('boxes-without-area', 'data-unreadable')
def annotations_without_area(cfg, folder):
    rewrite(cfg, folder, lambda content: [annotation.pop('area') for annotation in content['annotations']])


@seeded('boxes-outside')
def boxes_that_reach_out(cfg, folder):
    rewrite(cfg, folder, of_each_box(lambda x, y, w, h: [x + 50, y, w, h]))


@seeded('category-unknown')
def boxes_of_a_category_that_is_not_defined(cfg, folder):
    rewrite(cfg, folder, lambda content: content['annotations'][0].update(category_id=99))


@seeded('category-unknown')
def class_that_is_no_category(cfg, folder):
    rewrite(cfg, folder, lambda content: content['categories'][0].update(name='shadow 0'))


@seeded('image-size')
def annotations_of_larger_images(cfg, folder):
    rewrite(cfg, folder, lambda content: [image.update(width=192, height=192) for image in content['images']])


@seeded('anchor-reach')
def images_far_too_small_for_the_anchors(cfg, folder):
    cfg.train_dataloader.dataset.pipeline[2].scale = (16, 16)


@warned('boxes-without-area')
def a_box_without_area(cfg, folder):
    def change(content):
        content['annotations'] = [dict(a, id=index) for index, a in enumerate(content['annotations'] * 25)]
        content['annotations'][7]['area'] = 0

    rewrite(cfg, folder, change)


@warned('annotations-lost')
def a_box_in_an_image_that_is_not_there(cfg, folder):
    rewrite(cfg, folder, lambda content: content['annotations'].append(dict(content['annotations'][0], image_id=77)))


@warned('category-unused')
def a_class_without_a_box(cfg, folder):
    def change(content):
        content['annotations'] = [a for a in content['annotations'] if a['category_id'] != 3]

    rewrite(cfg, folder, change)


@warned('equal-models')
def student_like_its_teacher(cfg, folder):
    cfg.model.student = tiny_retinanet(16, 24)


@pytest.fixture
def healthy(squares, tmp_path, monkeypatch):
    """A distillation in which nothing is wrong."""
    monkeypatch.chdir(tmp_path)
    cfg = compose(Config.fromfile(squares.student), squares.teacher, squares.ckpt, ['fitnets'])
    cfg = Config(deepcopy(cfg._cfg_dict))
    cfg.merge_from_dict(dict(work_dir=str(tmp_path / 'work'), experiment_name=tmp_path.name, launcher='none'))
    return cfg


def test_a_healthy_config_has_no_fault(healthy):
    report = examine(healthy)
    assert not report.faults and not report.warnings, str(report)
    assert 'level 0  stride 8, 16ch   level 0  stride 8, 24ch   16 -> 24' in str(report)
    assert 'the teacher on 8 validation images: coco/bbox_mAP 0.' in str(report)


def test_a_method_that_trains_in_phases_is_examined_in_its_first(healthy):
    healthy.model.student = paired(tiny_retinanet(), 6, 3)
    healthy.model.methods = [dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=(1, 2))]
    report = examine(healthy)
    assert not report.faults, str(report)
    assert "residualkd trains in phases: this is the first, 'student'" in str(report)
    assert 'residualkd.loss_student' in str(report) and 'residualkd.loss_assistant' not in str(report)


def test_a_teacher_that_is_not_run_may_be_small_and_untrained(healthy, tmp_path):
    healthy.model.teacher = save_random_teacher(tiny_retinanet(6, 12), tmp_path)
    healthy.model.methods = [dict(type='mmrkd.DeepMutualLearning')]
    report = examine(healthy)
    assert not report.faults, str(report)
    assert 'deepmutuallearning.loss_student_peer' in str(report)
    healthy.model.init_student = 'head'
    assert {fault.name for fault in examine(healthy).faults} >= {'swapped'}


def test_a_mistake_beside_levels_that_are_resized(healthy, tmp_path):
    """The parts are wired as the whole would be."""
    student = healthy.model.student
    student.neck.update(end_level=2, num_outs=2)
    student.bbox_head.anchor_generator.strides = [8, 16]
    teacher = tiny_retinanet(16, 24)
    teacher['neck'].update(start_level=3, num_outs=2)
    teacher['bbox_head']['anchor_generator']['strides'] = [32, 64]
    healthy.model.update(teacher=save_random_teacher(teacher, tmp_path), resize='bilinear')
    misspelt_tap(healthy, tmp_path)
    assert [fault.name for fault in examine(healthy).faults] == ['tap-not-found']


@pytest.fixture
def classifiers(tmp_path, monkeypatch):
    """A distillation of classifiers. The same images are in every class, so that any is right in a quarter of them."""
    monkeypatch.chdir(tmp_path)
    for label in range(4):
        for index in range(8):
            pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
            mmcv.imwrite(pixels, str(tmp_path / f'images/class {label}/{index}.png'))
    loader = dict(
        batch_size=8,
        num_workers=0,
        sampler=dict(type='DefaultSampler'),
        dataset=dict(
            type='CustomDataset',
            data_root=str(tmp_path / 'images'),
            pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
        ),
    )
    student = tiny_classifier()
    return Config(
        dict(
            model=dict(
                type='mmrkd.Distiller',
                student=student,
                teacher=save_random_teacher(tiny_classifier(12), tmp_path),
                methods=[dict(type='mmrkd.ERA')],
            ),
            data_preprocessor=student.pop('data_preprocessor'),
            default_scope='mmpretrain',
            train_dataloader=loader,
            val_dataloader=loader,
            val_evaluator=dict(type='Accuracy'),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    )


def test_a_classifier_is_examined_too(classifiers):
    report = examine(classifiers)
    assert [fault.name for fault in report.faults] == ['teacher-untrained'], str(report)
    assert 'the teacher on 32 validation images: accuracy/top1 25' in str(report)
    assert 'level 0  pooled, 64 channels  level 0  pooled, 96 channels  64 -> 96' in str(report)


@pytest.mark.parametrize('mistake', SEEDED)
def test_a_mistake_has_its_name(mistake, healthy, tmp_path):
    make, names = SEEDED[mistake]
    make(healthy, tmp_path)
    report = examine(healthy)
    assert {fault.name for fault in report.faults} == names, str(report)
    assert 'Traceback' not in str(report) and len(str(report)) < 6000
    assert all(FAULTS[name].remedy in str(report) for name in names)
    assert not os.path.exists('it_ran')


@pytest.mark.parametrize('mistake', WARNED)
def test_a_warning_has_its_name_and_keeps_nothing_from_starting(mistake, healthy, tmp_path):
    make, names = WARNED[mistake]
    make(healthy, tmp_path)
    report = examine(healthy)
    assert {warning.name for warning in report.warnings} == names, str(report)
    assert not report.faults and str(report).endswith('no problem found')
    assert all(f'warning: [{name}] ' in str(report) and FAULTS[name].remedy in str(report) for name in names)
    assert not examine(healthy, ignore=names).warnings


@pytest.mark.parametrize(
    'mistake',
    [
        annotation_file_that_is_not_there,
        class_names_that_the_annotations_do_not_have,
        learning_rate_that_is_nan,
        misspelt_tap,
        permuted_class_names,
        student_frozen_all,
        student_with_other_classes,
        teacher_that_was_never_trained,
        training_without_annotations,
    ],
)
def test_a_training_does_not_begin_and_says_why(mistake, healthy, tmp_path):
    mistake(healthy, tmp_path)
    with pytest.raises(FaultError) as error:
        train_checked(healthy)
    assert str(error.value).startswith(f'[{min(SEEDED[mistake.__name__][1])}] ')
    assert not list((tmp_path / 'work').glob('*.pth'))


def test_every_fault_is_seeded():
    named = {name for _, names in [*SEEDED.values(), *WARNED.values()] for name in names}
    elsewhere = {'config-unreadable', 'command-line', 'method-refused', 'build-failed', 'views-missing', 'views-mixed'}
    assert set(FAULTS) - named == elsewhere


def test_views_are_known(classifiers):
    """A pipeline without the second view, one with it, and images that are mixed."""
    classifiers.model.methods = [dict(type='mmrkd.CRLD')]
    report = examine(classifiers)
    assert {fault.name for fault in report.faults} == {'views-missing', 'teacher-untrained'}, str(report)
    assert "dict(type='MultiView', num_views=[1, 1], transforms=[[...plain view...], [...strong view...]])" in str(
        report
    )
    flip = [dict(type='RandomFlip', prob=0.5)]
    pipeline = classifiers.train_dataloader.dataset.pipeline
    classifiers.train_dataloader = deepcopy(classifiers.train_dataloader)
    views = dict(type='MultiView', num_views=[1, 1], transforms=[flip, flip])
    classifiers.train_dataloader.dataset.pipeline = [pipeline[0], views, pipeline[1]]
    report = examine(classifiers)
    assert {fault.name for fault in report.faults} == {'teacher-untrained'}, str(report)
    assert 'crld sees 2 views of each image, so that a step has as many passes' in str(report)
    classifiers.data_preprocessor.batch_augments = dict(augments=dict(type='CutMix', alpha=1.0))
    report = examine(classifiers)
    assert {fault.name for fault in report.faults} == {'views-mixed'}, str(report)
    assert '(CutMix)' in str(report)
