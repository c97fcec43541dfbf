"""Names of methods."""

import pytest
import torch
from torch import nn

from mmrkd.models.methods import DistillMethod, FitNets, MethodDict
from mmrkd.registry import MODELS

HINT, KD = dict(type='mmrkd.FitNets'), dict(type='mmrkd.KD')


class GlossaryLoss(DistillMethod):
    """Its class name contains ``loss``."""

    def losses(self, student, teacher, samples):
        return {'loss_own': student.feats[0].sum() * 0, 'accuracy': torch.tensor(97.0)}


@pytest.fixture
def registered():
    MODELS.register_module(module=GlossaryLoss, force=True)


def names(*configs, teachers=('default',)):
    return list(MethodDict(configs, teachers))


def test_the_class_or_the_config_names_a_method():
    assert names(HINT, KD) == ['fitnets', 'kd']
    assert names(dict(HINT, name='hint'), KD) == ['hint', 'kd']
    assert names(HINT, HINT, KD, HINT) == ['fitnets', 'fitnets_2', 'kd', 'fitnets_3']
    assert names(FitNets(), FitNets()) == ['fitnets', 'fitnets_2']


def test_a_place_finds_a_method_too():
    methods = MethodDict([HINT, KD], ['default'])
    assert methods[0] is methods['fitnets'] and methods[-1] is methods['kd'] and len(methods) == 2
    with pytest.raises(IndexError):
        methods[2]


def test_a_name_that_is_used_twice_is_refused():
    with pytest.raises(ValueError, match="two methods are called 'hint'"):
        names(dict(HINT, name='hint'), dict(KD, name='hint'))
    assert names(dict(HINT, name='kd'), KD) == ['kd', 'kd_2']


@pytest.mark.parametrize('name', ['a.b', '', 'keys', 'update', 3, 'a b'])
def test_a_name_that_cannot_be_one_is_refused(name):
    with pytest.raises(ValueError, match='a method is called by letters'):
        names(dict(HINT, name=name))


def test_loss_in_a_name_would_make_every_entry_a_loss(registered):
    with pytest.raises(ValueError, match='contains "loss"'):
        names(dict(HINT, name='my_loss'))
    (name,) = names(dict(type='mmrkd.GlossaryLoss'))
    assert name == 'gary'


def test_only_losses_of_a_class_called_loss_are_in_the_total(registered, wide_classifier):
    from mmrkd.testing import build_distiller, classification_batch, model_inputs, tiny_classifier

    distiller = build_distiller(tiny_classifier(), wide_classifier, [dict(type='mmrkd.GlossaryLoss')])
    losses = distiller.loss(*model_inputs(distiller, classification_batch()))
    total, log = distiller.parse_losses(losses)
    assert total.item() == pytest.approx(losses['loss'].item(), rel=1e-6)
    assert any(key.endswith('.accuracy') and value == 97 for key, value in log.items())


def test_modules_in_it_are_those_of_the_methods():
    methods = MethodDict([HINT, KD], ['default'])
    methods['fitnets'].projection = nn.Linear(2, 3)
    assert list(methods.state_dict()) == ['fitnets.projection.weight', 'fitnets.projection.bias']
