"""What losses leave behind in a frozen model is taken back, whatever it is kept in."""

from collections import deque

import mmdet.models  # noqa: F401 - what is registered by a first import inside a test is gone after it
import pytest
import torch
from mmengine.config import ConfigDict
from torch import nn

from mmrkd.adapters import build_adapter
from mmrkd.adapters.state import unchanged
from mmrkd.support.trial import _tell_the_time, lighten, load_stock_config, small_variant
from mmrkd.testing import build_model, classification_batch, detection_batch, model_inputs, tiny_classifier


class Assigner:
    def __init__(self):
        self.threshold, self.history = 0.5, [1.0]


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer('count', torch.zeros(2))
        self.register_buffer('optional', None)
        self.weight = nn.Parameter(torch.ones(2))
        self.samples, self.queue, self.table = [0.0, 0.0], deque([1], maxlen=3), {'a': [1]}
        self.plain, self.beta, self.inner = torch.zeros(2), 1.0, (Assigner(), [3])
        self.assigner, self.cfg = Assigner(), ConfigDict(a=1)
        self.assigner.owner = self  # as PseudoSampler(context=self) does

    def loss(self):
        self.count += 1
        self.samples[0] += 5
        self.queue.append(2)
        self.table['a'].append(2)
        self.table['b'] = 3
        self.plain += 1
        self.beta = 2.0
        self.assigner.threshold = 0.6
        self.assigner.history.append(2.0)
        self.inner[0].history[0] = 7.0
        self.inner[1].clear()
        self.cache = 'new'
        return (self.weight * self.plain * self.count).sum()


def snapshot(head):
    return dict(
        count=head.count.tolist(),
        samples=list(head.samples),
        queue=list(head.queue),
        table={k: list(v) if isinstance(v, list) else v for k, v in head.table.items()},
        plain=head.plain.tolist(),
        beta=head.beta,
        threshold=head.assigner.threshold,
        history=list(head.assigner.history),
        inner=(list(head.inner[0].history), list(head.inner[1])),
        names=sorted(vars(head)),
    )


def test_everything_is_put_back():
    head = Head()
    before, lists = snapshot(head), (head.samples, head.queue, head.table, head.assigner)
    with unchanged([head]):
        loss = head.loss()
        assert snapshot(head) != before and head.cache == 'new'
    assert snapshot(head) == before and head.queue.maxlen == 3
    assert all(a is b for a, b in zip(lists, (head.samples, head.queue, head.table, head.assigner)))
    loss.backward()  # what the graph holds was not written into
    assert head.weight.grad.tolist() == [1.0, 1.0]


def test_also_after_an_error():
    head = Head()
    before = snapshot(head)
    with pytest.raises(KeyError):
        with unchanged([head]):
            head.loss()
            raise KeyError
    assert snapshot(head) == before


def test_replaced_containers_and_tensors_are_the_old_ones_again():
    head = Head()
    samples, plain, count = head.samples, head.plain, head.count
    with unchanged([head]):
        head.samples, head.plain, head.count = [1], torch.ones(1), torch.ones(5)
    assert head.samples is samples and head.plain is plain and head.count is count


def test_what_is_untouched_is_the_same_object():
    head = Head()
    before = dict(vars(head)), dict(head._buffers)
    with unchanged([head]):
        pass
    assert all(value is before[0][name] for name, value in vars(head).items())
    assert all(value is before[1][name] for name, value in head._buffers.items())


def test_modules_are_no_business_of_it():
    head = Head()
    part = head.part = nn.Linear(1, 1)
    with unchanged([head]):
        head.part = None
        head.eval()
    assert head.part is None and not head.training
    assert part.training


def test_ddod_counts_in_a_list():
    """12 judgements of one input by a DDOD teacher: 1.176 before and 1.189 after, while its list of counts grew."""
    adapter = build_adapter(build_model(small('ddod/ddod_r50_fpn_1x_coco')).eval())
    _tell_the_time(0)
    inputs, samples = model_inputs(adapter.model, detection_batch(1, size=adapter.dry_size, num_classes=80))
    feats = adapter.extract(inputs)
    counts = list(adapter.head.cls_num_pos_samples_per_level)
    losses = [float(sum(map(sum, adapter.judge(feats, inputs, samples)[0].values()))) for _ in range(3)]
    assert adapter.head.cls_num_pos_samples_per_level == counts
    assert losses[0] == losses[1] == losses[2] > 0
    adapter.model.bbox_head.train()
    adapter.task_loss(feats, inputs, samples)
    assert adapter.head.cls_num_pos_samples_per_level != counts  # what would happen otherwise


def test_seesaw_of_a_classifier_counts_in_a_buffer():
    cfg = tiny_classifier()
    cfg['head']['loss'] = dict(type='SeesawLoss', num_classes=4)
    adapter = build_adapter(build_model(cfg).eval())
    inputs, samples = model_inputs(adapter.model, classification_batch())
    feats = adapter.extract(inputs)
    adapter.judge(feats, inputs, samples)
    assert adapter.head.loss_module.cum_samples.sum() == 0
    adapter.task_loss(feats, inputs, samples)
    assert adapter.head.loss_module.cum_samples.sum() > 0


def small(name):
    return small_variant(lighten(load_stock_config(f'mmdet::{name}.py')))
