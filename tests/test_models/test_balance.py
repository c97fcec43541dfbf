"""Weights that set themselves: the numbers that they set are those that one computes by hand."""

import math
import statistics

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmrkd.models import DistillMethod
from mmrkd.models.balance import Balance, BalanceRequest
from mmrkd.models.gradient_shares import measure, terms_of
from mmrkd.testing import (
    build_distiller,
    classification_batch,
    detection_batch,
    model_inputs,
    paired,
    tiny_classifier,
    tiny_retinanet,
)


def balance_of(patterns, steps=3, share=0.1, autos=(), values=None):
    request = BalanceRequest(share, steps, tuple(autos))
    return Balance(request, patterns, values or dict.fromkeys(patterns, 1.0), 'some')


@pytest.fixture
def said(monkeypatch):
    """Lines of the log, with their level."""
    lines = []
    monkeypatch.setattr('mmrkd.models.balance.print_log', lambda text, *args: lines.append((text, *args[1:])))
    return lines


class Hand(DistillMethod):
    """Its gradients on the features f are known: ones, f, and none."""

    weights = {'w_one': 'loss_one', 'w_two': ('loss_two', 'loss_too'), 'w_three': 'loss_three'}
    compares_classes = False

    def __init__(self, w_one: float = 1.0, w_two: float = 0.0, w_three: float = 0.0, w_task: float = 1.0):
        super().__init__()
        self.w_one, self.w_two, self.w_three, self.task_weight = w_one, w_two, w_three, w_task
        self.own = torch.nn.Parameter(torch.ones(()))

    def losses(self, student, teacher, samples):
        self.feat = student.feats[0]
        return {
            'loss_one': self.w_one * self.feat.sum(),
            'loss_two': self.w_two * self.feat.square().sum() / 4,
            'loss_too': self.w_two * self.feat.square().sum() / 4,
            'loss_three': self.w_three * (self.feat.detach() * self.own).sum(),
            'one': self.feat.sum(),
        }


def hand(teacher, seed=2, **arguments):
    return build_distiller(tiny_classifier(), teacher, [dict(type=Hand, **arguments)], seed=seed).train()


def step(distiller, batch=None):
    inputs, samples = model_inputs(distiller, batch or classification_batch())
    losses = distiller(inputs, samples, mode='loss')
    return losses, samples


def task_gradient(distiller, feat, samples):
    """Cross entropy after a linear layer: (softmax(z) - y) W / N."""
    fc, labels = distiller.head.fc, torch.cat([sample.gt_label for sample in samples])
    scores = (feat @ fc.weight.T + fc.bias).softmax(dim=1)
    return (scores - torch.nn.functional.one_hot(labels, scores.shape[1])) @ fc.weight / len(feat)


class TestByHand:
    def test_one_weight(self, wide_classifier):
        distiller = hand(wide_classifier, w_one='auto', balance=dict(share=0.25, steps=1))
        losses, samples = step(distiller)
        method = distiller.methods[0]
        feat = method.feat.detach()
        expected = 0.25 * task_gradient(distiller, feat, samples).norm() / math.sqrt(feat.numel())
        assert method.balance.weights == {'w_one': pytest.approx(expected.item(), rel=1e-4)}
        torch.testing.assert_close(losses['hand.loss_one'], expected * feat.sum(), rtol=1e-4, atol=1e-5)
        assert losses['hand.one'] == feat.sum(), 'what is no loss is not touched'

    def test_each_gets_its_share_and_numbers_beside_them_stay(self, wide_classifier):
        distiller = hand(wide_classifier, w_one='auto', w_two='auto', w_three=0.7)
        losses, samples = step(distiller)
        method = distiller.methods[0]
        feat = method.feat.detach()
        whole = task_gradient(distiller, feat, samples).norm()
        assert (method.w_one, method.w_two, method.w_three) == (1.0, 1.0, 0.7), 'without a default it starts at 1'
        expected = dict(w_one=0.1 * whole / math.sqrt(feat.numel()), w_two=0.1 * whole / feat.norm())
        assert method.balance.weights == {k: pytest.approx(v.item(), rel=1e-4) for k, v in expected.items()}
        torch.testing.assert_close(losses['hand.loss_three'].detach(), 0.7 * feat.sum())

    def test_together_they_keep_their_ratio(self, wide_classifier):
        distiller = hand(wide_classifier, w_one=0.5, w_two=2.0, w_three=3.0, balance=0.3)
        _, samples = step(distiller)
        method = distiller.methods[0]
        feat = method.feat.detach()
        factor = 0.3 * task_gradient(distiller, feat, samples).norm() / (0.5 + 2 * feat).norm()
        weights = method.balance.weights
        assert weights['w_one'] == pytest.approx(0.5 * factor.item(), rel=1e-4)
        assert weights['w_two'] == pytest.approx(2 * factor.item(), rel=1e-4)
        assert weights['w_three'] == 3.0, 'its term trains the method and not the student: it has no share'

    @pytest.mark.parametrize('w_task, counts_as', [(0.2, 0.2), (0.0, 1.0)])
    def test_the_task_loss_counts_with_its_weight(self, wide_classifier, w_task, counts_as):
        weights = []
        for w in (1.0, w_task):
            distiller = hand(wide_classifier, w_one='auto', w_task=w)
            distiller.methods[0].scale = 0.5
            step(distiller)
            weights.append(distiller.methods[0].balance.weights['w_one'])
        assert weights[1] == pytest.approx(counts_as * weights[0], rel=1e-5)

    def test_a_term_without_a_gradient_keeps_its_weight_and_is_named(self, wide_classifier, said):
        distiller = hand(wide_classifier, w_one=0.0, w_three='auto', balance=dict(steps=2))
        for _ in range(3):
            losses, _ = step(distiller)
        method = distiller.methods[0]
        assert method.balance.weights == {'w_three': 1.0}
        torch.testing.assert_close(losses['hand.loss_three'], method.feat.sum())
        (text, level), *more = said
        assert text.startswith('hand: w_three stays at 1: its term had no gradient') and level == 30 and not more


class TestOverTheSteps:
    def run(self, balance, sizes, task=2.0):
        """Features of 4 ones: a term with gradient c beside a task loss with gradient ``task``, for each c."""
        found = []
        for size in sizes:
            feat = torch.ones(4, requires_grad=True)
            losses = balance(dict(loss_a=(size * feat).sum()), dict(loss=[(task * feat).sum()]), [feat, feat], 1.0)
            found.append(losses['loss_a'].item() / 4 / size)
        return found

    def test_the_median_so_far_is_in_force_and_then_frozen(self, said):
        balance = balance_of(dict(w_a='loss_*'), values=dict(w_a=5.0))
        shares = [0.5, 2.0, 1.0]
        expected = [0.1 / statistics.median(shares[:n]) for n in (1, 2, 3)]
        assert self.run(balance, [1.0, 4.0, 2.0, 100.0]) == pytest.approx([*expected, expected[-1]])
        assert balance.shares.tolist() == [shares] and balance.seen.tolist() == [3]
        assert balance.weights == {'w_a': pytest.approx(0.5)} and len(said) == 1
        assert said[0][0].startswith('some: w_a = 0.5 from now on, for 0.1 of the gradient of the task loss')

    def test_batches_that_say_nothing_are_not_in_the_median(self, said):
        balance = balance_of(dict(w_a='loss_*'))
        assert self.run(balance, [math.inf, 1.0])[1] == pytest.approx(0.2)
        assert self.run(balance, [1.0], task=0.0) == pytest.approx([0.2])
        assert balance.shares.tolist() == [[0.0, 0.5, 0.0]] and '(median of 1 steps)' in said[0][0]

    def test_nothing_is_measured_without_a_gradient_or_in_evaluation(self):
        balance = balance_of(dict(w_a='loss_*'))
        with torch.no_grad():
            self.run(balance, [1.0])
        self.run(balance.eval(), [1.0])
        assert balance.seen.tolist() == [0]

    def test_what_somebody_writes_into_the_buffers_is_read(self):
        """As loading a checkpoint and the guard against broken batches do."""
        balance, other = balance_of(dict(w_a='loss_*')), balance_of(dict(w_a='loss_*'))
        self.run(balance, [1.0, 2.0])
        other.load_state_dict(balance.state_dict())
        assert self.run(other, [4.0, 7.0]) == self.run(balance, [4.0, 7.0]) == pytest.approx([0.1, 0.1])

    def test_a_term_that_comes_later_is_measured_then(self):
        balance = balance_of(dict(w_a='loss_a', w_b='loss_b'), steps=1, autos=['w_a', 'w_b'])
        feat = torch.ones(4, requires_grad=True)
        for name, size in (('loss_a', 2.0), ('loss_b', 4.0)):
            balance({name: (size * feat).sum()}, dict(loss=feat.sum()), [feat], 1.0)
        assert balance.weights == pytest.approx(dict(w_a=0.05, w_b=0.025))


class TestMeasure:
    def test_each_norm_is_on_the_features_that_the_term_reaches(self):
        one, two, frozen = torch.ones(3, requires_grad=True), torch.ones(5, requires_grad=True), torch.ones(2)
        task = dict(loss=(3 * one).sum() + (4 * two).sum())
        groups = [dict(loss_a=one.sum()), dict(loss_b=2 * two.sum(), loss_c=two.sum()), {}]
        shares = measure(groups, task, [one, two, frozen], 1.0, with_sum=True)
        both = math.sqrt(3 * 1 + 5 * 9) / math.sqrt(3 * 9 + 5 * 16)
        assert shares == pytest.approx([1 / 3, 3 / 4, 0.0, both])

    def test_a_term_on_another_view_is_compared_with_the_task_on_its_own(self):
        plain, strong, other = (torch.ones(3, requires_grad=True) for _ in range(3))
        task = dict(loss=(4 * plain).sum() + 5 * other.sum())
        assert measure([dict(loss_a=strong.sum())], task, [(plain, strong), (other,), plain]) == [0.25]

    @pytest.mark.parametrize('size', [1e-9, 1.0, 1e6])
    def test_float16_neither_underflows_nor_overflows(self, size):
        feat = torch.ones(8, dtype=torch.float16, requires_grad=True)
        task = dict(loss=feat.float().sum())
        assert measure([dict(loss_a=(feat.float() * size).sum())], task, [feat]) == [pytest.approx(size, rel=1e-2)]

    def test_the_graph_is_left_for_the_step(self):
        feat = torch.ones(4, requires_grad=True)
        loss = feat.square().sum()
        assert measure([dict(loss_a=loss)], dict(loss=loss), [feat]) == [1.0] and feat.grad is None
        loss.backward()
        assert feat.grad.tolist() == [2.0] * 4

    def test_under_autocast_in_bfloat16(self, wide_classifier):
        found = []
        for enabled in (True, False):
            distiller = hand(wide_classifier, w_one='auto')
            with torch.autocast('cpu', dtype=torch.bfloat16, enabled=enabled):
                losses, _ = step(distiller)
            distiller.parse_losses(losses)[0].backward()
            found.append(distiller.methods[0].balance.weights['w_one'])
        assert found[0] == pytest.approx(found[1], rel=0.05)

    def test_a_term_belongs_to_the_first_weight_that_names_it(self):
        losses = dict(loss_a=1, loss_b=2, other=3, loss_c=4)
        found = terms_of(losses, dict(x='loss_a', y=('loss_?', 'other'), z='loss_c'))
        assert found == dict(x=dict(loss_a=1), y=dict(loss_b=2, loss_c=4), z={})


class TestRequest:
    @pytest.mark.parametrize(
        'cfg, expected',
        [
            ({}, None),
            (dict(w_a=1.0), None),
            (dict(balance=None), None),
            (dict(balance=0.2), (0.2, 20, ())),
            (dict(balance='auto'), (0.1, 20, ())),
            (dict(balance=dict(steps=5)), (0.1, 5, ())),
            (dict(w_a='auto', w_b=2.0), (0.1, 20, ('w_a',))),
            (dict(w_b='auto', w_a='auto', balance=dict(share=1, steps=7)), (1, 7, ('w_a', 'w_b'))),
        ],
    )
    def test_what_a_config_may_say(self, cfg, expected):
        assert BalanceRequest.of(cfg, ('w_a', 'w_b')) == (expected and BalanceRequest(*expected))

    @pytest.mark.parametrize(
        'value, error, text',
        [
            (True, TypeError, 'expected a share'),
            ('on', TypeError, 'expected a share'),
            (dict(shares=1), TypeError, 'expected a share'),
            (0, ValueError, 'above 0'),
            (-0.1, ValueError, 'above 0'),
            (math.nan, ValueError, 'above 0'),
            (dict(share='auto'), ValueError, 'above 0'),
            (dict(steps=0), ValueError, 'steps must be a whole number'),
            (dict(steps=2.5), ValueError, 'steps must be a whole number'),
        ],
    )
    def test_what_it_may_not(self, value, error, text):
        with pytest.raises(error, match=text):
            BalanceRequest.of(dict(balance=value), ())

    def test_a_default_stands_in_until_the_weight_is_found(self, wide_classifier):
        methods = [dict(type='mmrkd.PKD', w_pkd='auto'), dict(type='mmrkd.ERA', w_res='auto', detach_student=True)]
        pkd, era = build_distiller(tiny_classifier(), wide_classifier, methods).methods.values()
        assert pkd.w_pkd == 10.0 and pkd.balance.weights == {'w_pkd': 10.0}
        assert era.w_res == 1.0 and list(era.balance.weights) == ['w_res']

    def test_methods_that_have_nothing_to_balance(self, wide_classifier):
        assert hand(wide_classifier).methods[0].balance is None
        assert not [key for key in hand(wide_classifier).state_dict() if 'balance' in key]
        assert hand(wide_classifier, w_one=0, balance=0.1).methods[0].balance is None
        with pytest.raises(TypeError, match="'auto' is for configs"):
            build_distiller(tiny_classifier(), wide_classifier, [Hand(w_one='auto')])
        undeclared = dict(type=type('Undeclared', (Hand,), dict(weights={})), balance=0.1)
        with pytest.raises(ValueError, match='undeclared declares no weights'):
            build_distiller(tiny_classifier(), wide_classifier, [undeclared])


def shares_of(distiller, batch, extracted):
    """The shares as they are: gradients of what the distiller returns, on what the student's extract_feat gave."""
    losses, _ = step(distiller, batch)
    task = sum(torch.as_tensor(v).sum() for k, v in flat(losses) if '.' not in k)
    points, shares = list(extracted), {}
    reference = torch.autograd.grad(task, points, retain_graph=True, allow_unused=True)
    for method in distiller.methods:
        own = sum(v for k, v in flat(losses) if k.startswith(f'{method}.'))
        grads = torch.autograd.grad(own, points, retain_graph=True, allow_unused=True)
        pairs = [(g, r) for g, r in zip(grads, reference) if g is not None]
        sizes = [torch.cat([part.flatten() for part in side]).norm() for side in zip(*pairs)]
        shares[method] = (sizes[0] / sizes[1]).item()
    return shares


def flat(losses):
    parts = {k: value if isinstance(value, list) else [value] for k, value in losses.items() if 'loss' in k}
    return [(name, part) for name, values in parts.items() for part in values]


class TestShareIsReached:
    @pytest.mark.parametrize('kind', ['classifier', 'retinanet'])
    def test_on_a_tiny_model(self, kind, wide_classifier, wide_retinanet, monkeypatch):
        """The share that was asked for, measured once more in the batch that it was found in."""
        student, teacher, batch = {
            'classifier': (tiny_classifier(), wide_classifier, classification_batch(8)),
            'retinanet': (tiny_retinanet(), wide_retinanet, detection_batch()),
        }[kind]
        methods = [
            dict(type='mmrkd.PKD', w_pkd='auto', balance=dict(share=0.3, steps=2)),
            dict(type='mmrkd.ERA', balance=dict(share=0.2, steps=2), standardize=False),
        ]
        distiller = build_distiller(student, teacher, methods).train()
        extracted, own = [], distiller.adapter.extract

        def extract(inputs):
            feats = own(inputs)
            extracted[:] = feats
            return feats

        monkeypatch.setattr(distiller.adapter, 'extract', extract)
        for _ in range(2):
            step(distiller, batch)
        assert shares_of(distiller, batch, extracted) == pytest.approx(dict(pkd=0.3, era=0.2), rel=1e-3)
        assert all(method.balance.seen.min() == 2 for method in distiller.methods.values())


class TestInATraining:
    def test_a_schedule_neither_measures_while_it_is_off_nor_is_part_of_the_share(self, wide_classifier):
        distiller, other = (hand(wide_classifier, w_one='auto', balance=dict(steps=1)) for _ in range(2))
        distiller.methods[0].scale = 0.0
        assert 'hand.loss_one' not in step(distiller)[0] and distiller.methods[0].balance.seen.tolist() == [0]
        distiller.methods[0].scale = 0.25
        losses = [step(model)[0]['hand.loss_one'] for model in (distiller, other)]
        assert distiller.methods[0].balance.weights == other.methods[0].balance.weights
        torch.testing.assert_close(losses[0], losses[1] / 4)

    def test_accumulated_gradients_are_measured_batch_by_batch(self, wide_classifier):
        found = []
        for counts in (1, 4):
            distiller = hand(wide_classifier, w_one='auto', balance=dict(steps=4))
            wrapper = OptimWrapper(torch.optim.SGD(distiller.parameters(), lr=0.0), accumulative_counts=counts)
            for _ in range(4):
                distiller.train_step(classification_batch(), wrapper)
            found.append(distiller.methods[0].balance.weights)
            assert distiller.methods[0].balance.seen.tolist() == [4]
        assert found[0] == found[1]

    def test_a_batch_that_is_left_out_leaves_no_trace(self, wide_classifier):
        distiller = build_distiller(
            tiny_classifier(), wide_classifier, [dict(type=Hand, balance=dict(steps=2))], on_nonfinite='skip'
        ).train()
        step(distiller)
        before = {key: value.clone() for key, value in distiller.methods[0].balance.state_dict().items()}
        distiller.methods[0].w_one = math.nan
        assert list(step(distiller)[0]) == ['loss_skipped']
        distiller.methods[0].w_one = 1.0
        assert all(torch.equal(v, before[k]) for k, v in distiller.methods[0].balance.state_dict().items())
        step(distiller)
        assert distiller.methods[0].balance.seen.tolist() == [2]

    def test_in_phases_each_weight_is_measured_where_its_term_is_on(self, wide_classifier):
        method = dict(type='mmrkd.ResidualKD', scheme='progressive', phase_epochs=[1, 2], balance=dict(steps=2))
        distiller = build_distiller(paired(tiny_classifier(8), 6, 3), wide_classifier, [method]).train()
        seen = []
        for phase in ('student', 'assistant', 'head'):
            distiller.methods[0].enter_phase(phase)
            for _ in range(3):
                losses, _ = step(distiller)
            seen.append(distiller.methods[0].balance.seen.tolist())
        assert seen == [[2, 0], [2, 2], [2, 2]] and 'residualkd.loss_student' not in losses
        assert all(factor not in (0.0, 1.0) for factor in distiller.methods[0].balance.factors.tolist())

    def test_taps_below_the_neck_are_features_too(self, wide_retinanet):
        method = dict(type='mmrkd.AttentionTransfer', w_at='auto', balance=dict(steps=1))
        distiller = build_distiller(tiny_retinanet(), wide_retinanet, [method]).train()
        step(distiller, detection_batch())
        assert distiller.methods[0].balance.shares.min() > 0 and distiller.methods[0].balance.weights['w_at'] != 500
