import pytest
import torch
from torch import nn

from mmrkd.adapters.taps import tap_outputs


def hooks_of(model):
    return [hook for module in model.modules() for hook in module._forward_hooks.values()]


@pytest.fixture
def model():
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))


def test_the_very_tensors_are_recorded_under_the_names_given(model):
    x = torch.rand(4, 2)
    with tap_outputs(first=model[0], last=model[2]) as outputs:
        y = model(x)
    assert set(outputs) == {'first', 'last'}
    assert outputs['last'] is y
    assert torch.equal(outputs['first'], model[0](x))


def test_gradients_flow_through_what_is_recorded(model):
    with tap_outputs(first=model[0]) as outputs:
        model(torch.rand(4, 2))
    outputs['first'].sum().backward()
    assert model[0].bias.grad.tolist() == [4.0, 4.0, 4.0]


def test_the_last_of_several_calls_counts(model):
    with tap_outputs(last=model[2]) as outputs:
        model(torch.zeros(1, 2))
        y = model(torch.ones(1, 2))
    assert outputs['last'] is y


def test_a_module_that_is_not_called_has_no_entry(model):
    with tap_outputs(first=model[0], other=nn.Linear(1, 1)) as outputs:
        model(torch.rand(1, 2))
    assert list(outputs) == ['first']


def test_no_hook_stays_and_nothing_is_recorded_afterwards(model):
    with tap_outputs(first=model[0], last=model[2]) as outputs:
        assert len(hooks_of(model)) == 2
    model(torch.rand(1, 2))
    assert outputs == {}
    assert hooks_of(model) == []


def test_no_hook_stays_after_an_error(model):
    with pytest.raises(RuntimeError, match='shapes cannot be multiplied'):
        with tap_outputs(first=model[0], last=model[2]):
            model(torch.rand(1, 5))
    assert hooks_of(model) == []


def test_no_hook_stays_if_one_cannot_be_placed(model):
    with pytest.raises(AttributeError):
        with tap_outputs(first=model[0], wrong='a string'):
            pass
    assert hooks_of(model) == []


def test_hooks_of_others_are_left_alone(model):
    own = model[0].register_forward_hook(lambda *_: None)
    with tap_outputs(first=model[0]):
        pass
    assert hooks_of(model) == [model[0]._forward_hooks[own.id]]
