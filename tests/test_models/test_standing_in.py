"""The distiller stands in for its student: what a stock hook, optimiser constructor or API asks of it."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from mmrkd.models import Distiller
from mmrkd.registry import MODELS
from mmrkd.testing import build_distiller, build_model, save_random_teacher, tiny_classifier, tiny_retinanet

HINT = dict(type='mmrkd.FitNets')


def convnext_retinanet():
    cfg = tiny_retinanet()
    arch = dict(depths=[1, 1, 3, 1], channels=[8, 16, 32, 64])
    cfg['backbone'] = dict(type='mmpretrain.ConvNeXt', arch=arch, out_indices=[0, 1, 2, 3], gap_before_final_norm=False)
    return cfg


def swin_classifier():
    cfg = tiny_classifier()
    arch = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
    cfg['backbone'] = dict(type='SwinTransformer', arch=arch, img_size=64, window_size=2)
    cfg['head']['in_channels'] = 64
    return cfg


CASES = {
    'default': (tiny_retinanet, None, dict(custom_keys={'backbone': dict(lr_mult=0.1), 'neck': dict(decay_mult=0.0)})),
    'norms and biases': (tiny_retinanet, None, dict(norm_decay_mult=0.0, bias_lr_mult=2.0, bias_decay_mult=0.0)),
    'layers of mmdet': (
        convnext_retinanet,
        'LearningRateDecayOptimizerConstructor',
        dict(decay_rate=0.7, decay_type='layer_wise', num_layers=6),
    ),
    'stages of mmdet': (
        convnext_retinanet,
        'LearningRateDecayOptimizerConstructor',
        dict(decay_rate=0.7, decay_type='stage_wise', num_layers=6),
    ),
    'layers of mmpretrain': (
        swin_classifier,
        'mmpretrain.LearningRateDecayOptimWrapperConstructor',
        dict(layer_decay_rate=0.8, norm_decay_mult=0.0, flat_decay_mult=0.0),
    ),
}


@pytest.mark.parametrize('case', CASES)
def test_every_optimiser_constructor_gives_the_student_what_it_gives_the_plain_model(case, tmp_path):
    make, constructor, paramwise = CASES[case]
    teacher = save_random_teacher(make(), tmp_path)
    distiller, plain = build_distiller(make(), teacher, [HINT], seed=3), build_model(make(), seed=3)
    init_default_scope(plain.__class__.__module__.split('.')[0])
    cfg = dict(optimizer=dict(type='AdamW', lr=0.01, weight_decay=0.05), paramwise_cfg=paramwise)
    cfg.update({} if constructor is None else dict(constructor=constructor))
    found, expected = (settings(model, build_optim_wrapper(model, ConfigDict(cfg))) for model in (distiller, plain))
    assert len({lr for lr, _ in expected.values()}) + len({wd for _, wd in expected.values()}) > 2
    assert {name: found[name] for name in expected} == expected
    own = {name for name in found if name.startswith('methods.fitnets.')}
    assert own and found.keys() == expected.keys() | own
    assert all(found[name][0] in (0.01, 0.02) for name in own), 'what methods train is no layer of the backbone'


def settings(model, wrapper):
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: (pytest.approx(g['lr']).expected, pytest.approx(g['weight_decay']).expected)
        for g in wrapper.optimizer.param_groups
        for p in g['params']
    }


def test_parameters_have_their_plain_names(wide_retinanet):
    distiller, plain = build_distiller(tiny_retinanet(), wide_retinanet, [HINT]), build_model(tiny_retinanet())
    names = [name for name, _ in distiller.named_parameters()]
    assert names[: len(list(plain.named_parameters()))] == [name for name, _ in plain.named_parameters()]
    assert [n for n, _ in distiller.named_parameters(prefix='module')] == [f'module.{n}' for n in names]
    assert len(list(distiller.parameters())) == len(names)


class TestAsked:
    @pytest.fixture
    def distiller(self, wide_retinanet):
        return build_distiller(tiny_retinanet(), wide_retinanet, [HINT])

    def test_parts_methods_and_attributes_are_the_students(self, distiller):
        assert distiller.backbone is distiller.student.backbone and distiller.bbox_head is distiller.student.bbox_head
        assert distiller.with_neck is True and distiller.train_cfg is distiller.student.train_cfg
        distiller.student.set_epoch = lambda epoch: setattr(distiller.student, 'epoch', epoch)
        distiller.set_epoch(7)
        assert distiller.student.epoch == 7
        with pytest.raises(AttributeError, match='no_such_part'):
            _ = distiller.no_such_part

    def test_its_own_come_first(self, distiller):
        assert isinstance(distiller, Distiller) and distiller.loss.__func__ is Distiller.loss
        assert distiller.methods['fitnets'].name == 'fitnets'

    def test_a_hook_that_tells_the_epoch_reaches_the_student(self, wide_retinanet):
        """SetEpochInfoHook of mmdet calls ``set_epoch`` of the model."""
        from types import SimpleNamespace

        from mmdet.engine.hooks import SetEpochInfoHook

        distiller, seen = build_distiller(tiny_retinanet(), wide_retinanet, [HINT]), []
        distiller.student.set_epoch = seen.append
        SetEpochInfoHook().before_train_epoch(SimpleNamespace(epoch=3, model=distiller))
        assert seen == [3]

    def test_a_model_with_parts_of_the_distillers_names_is_refused_in_words(self, wide_retinanet):
        class Pair(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.student, self.teacher = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
                self.data_preprocessor = None

        MODELS.register_module(module=Pair, name='SemiPair', force=True)
        with pytest.raises(
            ValueError, match=r"SemiPair|Pair cannot be a student: its own parts \['student', 'teacher'\]"
        ):
            Distiller(dict(type='SemiPair'), wide_retinanet, [HINT])


def test_init_detector_takes_the_config_of_the_run_and_its_checkpoint(squares, tmp_path):
    """It looks for ``cfg.model.backbone``, and predicts as the plain config and the same checkpoint do."""
    import numpy as np
    from mmdet.apis import inference_detector, init_detector
    from mmengine.config import Config

    from mmrkd.engine import prepare_config
    from mmrkd.engine.compose import compose

    cfg = prepare_config(compose(Config.fromfile(squares.student), squares.teacher, squares.ckpt, ['fitnets']))
    plain = build_model(Config.fromfile(squares.student).model, seed=4)
    torch.save(dict(state_dict=plain.state_dict(), meta=dict(dataset_meta=dict(classes=('a', 'b', 'c', 'd')))),
               tmp_path / 'epoch_1.pth')  # fmt: skip
    cfg.dump(tmp_path / 'run.py')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(96, 96), keep_ratio=False),
        dict(type='PackDetInputs', meta_keys=('img_id', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    found = []
    for config in (str(tmp_path / 'run.py'), squares.student):
        written = Config.fromfile(config)
        written.test_dataloader = dict(dataset=dict(pipeline=pipeline))
        model = init_detector(written, str(tmp_path / 'epoch_1.pth'), palette='random', device='cpu')
        image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        found.append(inference_detector(model, image).pred_instances)
    assert len(found[1]) and torch.equal(found[0].scores, found[1].scores)


class TestWritten:
    """What a hook sets on the model belongs to the student, and reaches its losses."""

    @pytest.fixture
    def distiller(self, wide_classifier):
        return build_distiller(tiny_classifier(), wide_classifier, [HINT])

    def test_an_attribute_of_the_student_is_set_there(self, distiller):
        distiller.student.loss_lambda = 0.5  # as DenseCL has it, and its hook sets it
        distiller.loss_lambda = 0.0
        assert distiller.student.loss_lambda == 0.0 and 'loss_lambda' not in vars(distiller)

    def test_what_the_student_does_not_have_stays_with_the_distiller(self, distiller):
        distiller.cfg = 'of init_detector'
        assert vars(distiller)['cfg'] == 'of init_detector' and not hasattr(distiller.student, 'cfg')
        distiller.variant = 'teacher'
        assert vars(distiller)['variant'] == 'teacher' and not hasattr(distiller.student, 'variant')

    def test_a_recipe_is_switched(self, distiller):
        """SwitchRecipeHook of mmpretrain exchanges the loss of the head and the mixing of images."""
        from types import SimpleNamespace

        from mmpretrain.engine.hooks import SwitchRecipeHook

        runner = SimpleNamespace(model=distiller)
        loss = torch.nn.BCEWithLogitsLoss()
        SwitchRecipeHook._switch_loss(runner, loss)
        SwitchRecipeHook._switch_batch_augments(runner, 'mixed')
        assert distiller.student.head.loss_module is loss
        assert distiller.student.data_preprocessor.batch_augments == 'mixed'

    def test_also_where_several_views_are_handed_on(self, distiller):
        from mmrkd.models import ViewsPreprocessor

        wrapper = ViewsPreprocessor(distiller.student.data_preprocessor)
        wrapper.batch_augments = 'mixed'
        assert distiller.student.data_preprocessor.batch_augments == 'mixed'
        wrapper.eval()
        assert wrapper.training is False


def test_numbers_of_classes_are_checked_in_the_student(wide_retinanet):
    """NumClassCheckHook of mmdet looks at every module of the model."""
    from types import SimpleNamespace

    from mmdet.engine.hooks import NumClassCheckHook

    distiller = build_distiller(tiny_retinanet(), wide_retinanet, [HINT]).train()
    for classes, fits in ((tuple('abcd'), True), (tuple('abc'), False)):
        data = SimpleNamespace(metainfo=dict(classes=classes))
        loop = SimpleNamespace(dataloader=SimpleNamespace(dataset=data))
        runner = SimpleNamespace(model=distiller, train_loop=loop, train_dataloader=loop.dataloader, logger=None)
        if fits:
            NumClassCheckHook().before_train_epoch(runner)
        else:
            with pytest.raises(AssertionError, match='num_classes'):
                NumClassCheckHook().before_train_epoch(runner)
