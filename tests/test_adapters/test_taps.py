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


class Head(nn.Module):
    """As a dense head: one convolution for all levels; as heads of mmseg and mmpose: ``loss`` calls ``forward``."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Linear(2, 2, bias=False)

    def forward(self, feats, target=None):
        return [self.conv(level) for level in feats]

    def loss(self, feats, direct):
        return sum(out.sum() for out in (self.forward(feats, target=1) if direct else self(feats, target=1)))


FEATS = [torch.ones(1, 2), torch.ones(3, 2)]


@pytest.mark.parametrize('direct', [False, True])
class TestPastTheHooks:
    def test_each_call_is_recorded_once(self, direct):
        head = Head()
        with tap_outputs(head=head, every=True) as outputs:
            head.loss(FEATS, direct)
            head.loss(FEATS, direct)
        assert len(outputs['head']) == 2 and [len(level) for level in outputs['head'][0]] == [1, 3]

    def test_nothing_stays(self, direct):
        head = Head()
        before = dict(vars(head))
        with tap_outputs(head=head):
            head.loss(FEATS, direct)
        assert vars(head) == before and not head._forward_pre_hooks and not head._forward_hooks

    def test_an_error_inside_a_call_leaves_the_next_one_alone(self, direct):
        head = Head()
        with tap_outputs(head=head, every=True) as outputs:
            with pytest.raises(TypeError):
                head.loss(None, direct)
            head.loss(FEATS, not direct)
        assert len(outputs['head']) == 1


def test_mixed_calls_are_recorded_once_each():
    head = Head()
    with tap_outputs(head=head, every=True) as outputs:
        head(FEATS)
        head.forward(FEATS)
        head(FEATS)
    assert len(outputs['head']) == 3


def test_a_hook_of_somebody_else_has_the_last_word():
    head = Head()
    head.register_forward_hook(lambda *_: 'replaced')
    with tap_outputs(head=head) as outputs:
        assert head(FEATS) == 'replaced'
    assert outputs['head'] == 'replaced'


def test_a_forward_that_was_set_on_the_instance_is_used_and_put_back():
    head = Head()
    own = lambda feats, target=None: 'own'  # noqa: E731
    head.forward = own
    with tap_outputs(head=head) as outputs:
        assert head(FEATS) == 'own'
    assert outputs['head'] == 'own' and head.forward is own


def test_every_call_comes_in_the_order_of_levels():
    head = Head()
    with tap_outputs({'head.conv': head.conv}, every=True) as outputs:
        levels = head(FEATS)
    assert [a is b for a, b in zip(outputs['head.conv'], levels)] == [True, True]


def test_inputs_come_with_the_output():
    head = Head()
    with tap_outputs(head=head, conv=head.conv, inputs=True) as calls:
        levels = head(FEATS, target=5)
    assert calls['head'].args == (FEATS,) and calls['head'].kwargs == {'target': 5}
    assert calls['conv'].args[0] is FEATS[1] and calls['conv'].output is levels[1]
    with tap_outputs(conv=head.conv, inputs=True, every=True) as calls:
        head(FEATS)
    assert [call.args[0] is level for call, level in zip(calls['conv'], FEATS)] == [True, True]


def test_a_module_may_be_called_every_or_inputs():
    linear = nn.Linear(1, 1)
    with tap_outputs({'every': linear, 'inputs': linear}) as outputs:
        linear(torch.ones(1, 1))
    assert set(outputs) == {'every', 'inputs'} and isinstance(outputs['every'], torch.Tensor)
