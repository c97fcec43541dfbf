"""Forked processes that talk through gloo: what they compute together is what one process computes alone."""

import os
import time
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.model.wrappers import MMFullyShardedDataParallel
from mmengine.optim import OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullStateDictConfig, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from mmrkd.checkpoint import METHOD_STATE
from mmrkd.engine import MergeCheckpointHook, SplitCheckpointHook
from mmrkd.engine.step_counts import count_step
from mmrkd.stack import release
from mmrkd.testing import (
    build_distiller,
    build_model,
    classification_batch,
    detection_batch,
    tiny_classifier,
    tiny_retinanet,
)

ERA, FITNETS = dict(type='mmrkd.ERA', twi_on='all'), dict(type='mmrkd.FitNets')


def processes(number, task, folder, *arguments, timeout=60):
    """Runs ``task(rank, number, *arguments)`` in forked processes; returns their results (or error texts) by rank."""
    context = mp.get_context('fork')

    def body(rank):
        address = f'file://{folder}/store'
        dist.init_process_group('gloo', init_method=address, rank=rank, world_size=number)
        try:
            result = task(rank, number, *arguments)
        except Exception as error:
            result = f'{type(error).__name__}: {error}'
        torch.save(result, f'{folder}/{rank}.pt')
        os._exit(0)

    workers = [context.Process(target=body, args=(rank,)) for rank in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout)
        assert not worker.is_alive() or worker.kill(), 'a process hangs'
    paths = [f'{folder}/{rank}.pt' for rank in range(number)]
    return [torch.load(path, weights_only=False) if os.path.exists(path) else None for path in paths]


def model_of(kind, teachers, methods, **options):
    student = tiny_classifier() if kind == 'classifier' else tiny_retinanet()
    model = build_distiller(student, deepcopy(teachers[kind]), methods, seed=1, **options).train()
    for module in model.modules():  # the statistics of a batch are those of its process
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def share(batch, rank, number):
    return {key: value[rank::number] for key, value in batch.items()}


def batch_of(kind):
    """8 images; two boxes of a detector are not enough for each process, so all images are one."""
    if kind == 'classifier':
        return classification_batch(8)
    batch = detection_batch(1)
    return {key: [deepcopy(value[0]) for _ in range(4)] for key, value in batch.items()}


def wrap(model):
    return MMDistributedDataParallel(module=model, broadcast_buffers=False, find_unused_parameters=False)


def backward(model, batch):
    module = model.module if hasattr(model, 'module') else model
    data = module.data_preprocessor(batch, True)
    further = (data['inputs'].flip(3),) if any(method.views for method in module.methods.values()) else ()
    losses = model(data['inputs'], data['data_samples'], mode='loss', views=further)
    module.parse_losses(losses)[0].backward()


def gradients(rank, number, kind, teachers, methods):
    model = wrap(model_of(kind, teachers, methods))
    for _ in range(2):  # what DDP has to say about unused parameters it says in the second step
        model.zero_grad()
        backward(model, share(batch_of(kind), rank, number))
    return {name: parameter.grad for name, parameter in model.module.named_parameters()}


METHODS = {
    'era and fitnets': [ERA, FITNETS],
    'era, last': [dict(ERA, twi_on='last', w_feat=0, w_kd=0)],
    'era, none': [dict(ERA, twi_on='none', w_res=0)],
    'era, a branch waits': [dict(ERA, start_branches=2)],
    'era, judged in turn': [dict(ERA, twi_every=2, w_res=0, w_feat=0)],
    'fitnets off': [ERA, dict(FITNETS, w_feat=0)],
    'crld': [dict(type='mmrkd.CRLD', tau_weak=0.4, tau_strong=0.3)],
    'tred': [dict(type='mmrkd.TRED', w_mmd=0, standardize=False)],
}


class TestGradients:
    @pytest.mark.parametrize(
        'kind, number, methods',
        [
            *(('classifier', 2, name) for name in METHODS),
            ('classifier', 4, 'era and fitnets'),
            ('retinanet', 2, 'era and fitnets'),
        ],
    )
    def test_they_are_those_of_one_process_with_the_whole_batch(self, kind, number, methods, teachers, tmp_path):
        alone = model_of(kind, teachers, METHODS[methods])
        for _ in range(2):
            alone.zero_grad()
            backward(alone, batch_of(kind))
        found = processes(number, gradients, tmp_path, kind, teachers, METHODS[methods])
        assert all(isinstance(result, dict) for result in found), found
        for name, parameter in alone.named_parameters():
            for result in found:
                if parameter.grad is None:  # idle: DDP gets a gradient of 0
                    assert result[name] is None or not result[name].any(), name
                else:
                    torch.testing.assert_close(result[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


class TestPassesAndPhases:
    """Methods that look at other images of the same batch are those of their process; what is learnt is shared."""

    @staticmethod
    def several_passes(rank, number, teachers):
        methods = [dict(type='mmrkd.R2KD', rank='soft'), dict(type='mmrkd.DSKD', w_exit_task=0.1)]
        methods += [dict(type='mmrkd.SSKD', w_ce=1.0), dict(type='mmrkd.TRED')]
        model = wrap(model_of('classifier', teachers, methods))
        fingerprint = model.module.teacher.fingerprint()
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in range(2):
            logs = model.train_step(share(batch_of('classifier'), rank, number), wrapper)
        finite = all(torch.isfinite(torch.as_tensor(value)) for value in logs.values())
        return finite and model.module.teacher.fingerprint() == fingerprint, model.module.state_dict()

    @staticmethod
    def two_phases(rank, number, teachers):
        """As PhaseHook does it: the model is wrapped anew when another phase begins."""
        model = model_of('classifier', teachers, [dict(type='mmrkd.SSKD', schedule='first', head_epochs=1)])
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        before, moved = deepcopy(model.state_dict()), []
        for phase in ('head', 'student'):
            model.methods[0].enter_phase(phase)
            wrapped = wrap(model)
            for _ in range(2):
                wrapped.train_step(share(batch_of('classifier'), rank, number), wrapper)
            after = model.state_dict()
            moved.append({'teacher_head' in name for name in after if not torch.equal(after[name], before[name])})
            before = deepcopy(after)
        return moved == [{True}, {False}], before

    @pytest.mark.parametrize('task', ['several_passes', 'two_phases'])
    def test_all_processes_go_on_together(self, task, teachers, tmp_path):
        found = processes(2, getattr(self, task), tmp_path, teachers)
        assert all(isinstance(result, tuple) for result in found), found
        (right, first), (also_right, second) = found
        assert right and also_right
        assert all(torch.equal(value, second[name]) for name, value in first.items())


class TestMessages:
    """What the processes say to each other beyond the gradients that are averaged and what mmdet's heads exchange."""

    @staticmethod
    def count(rank, number, teachers):
        found = {}
        for name, cfg in dict(kd=dict(type='mmrkd.KD'), fitnets=FITNETS, era=ERA).items():
            model = model_of('retinanet', teachers, [cfg])
            data = model.data_preprocessor(share(batch_of('retinanet'), rank, number), True)
            found[name] = count_step(model, lambda: model(**data, mode='loss'))[0].own_messages  # noqa: B023
        return found

    def test_a_standardiser_exchanges_its_statistics_at_once_and_nothing_else_does(self, teachers, tmp_path):
        assert processes(2, self.count, tmp_path, teachers) == [dict(kd=0, fitnets=1, era=1)] * 2


class TestSchedule:
    @staticmethod
    def off_and_on(rank, number, teachers):
        """A method that is switched off and on again does not stop DDP."""
        model = wrap(model_of('classifier', teachers, [ERA, FITNETS]))
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for scales in ((0, 0), (0, 0), (1, 0), (0.5, 1), (0, 0)):
            for method, scale in zip(model.module.methods.values(), scales):
                method.scale = scale
            logs = model.train_step(share(batch_of('classifier'), rank, number), wrapper)
        return list(logs), model.module.state_dict()

    def test_methods_come_and_go(self, teachers, tmp_path):
        found = processes(2, self.off_and_on, tmp_path, teachers)
        assert all(isinstance(result, tuple) for result in found), found
        (names, first), (_, second) = found
        assert names == ['loss', 'loss_idle'] or set(names) == {'loss', 'loss_idle'}
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.skipif(release(torch.__version__) < (2, 6, 0), reason='older torch runs FSDP on GPUs only')
class TestFullySharded:
    """On the CPU torch's FSDP runs if it is told so; the teacher is whole in every process."""

    @staticmethod
    def train_save_load(rank, number, teachers):
        def sharded(seed):
            model = build_distiller(tiny_classifier(), deepcopy(teachers['classifier']), [ERA], seed=seed).train()
            cpu = torch.device('cpu')
            return MMFullyShardedDataParallel(module=model, use_orig_params=True, device_id=cpu)

        def state(model):
            with FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
                return model.state_dict()

        model = sharded(seed=1)
        fingerprint = model.module.teacher.fingerprint()
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for _ in range(2):
            model.train_step(share(batch_of('classifier'), rank, number), wrapper)
        saved = dict(state_dict=state(model))
        SplitCheckpointHook().before_save_checkpoint(SimpleNamespace(model=model), saved)
        checkpoint = deepcopy(saved)
        MergeCheckpointHook().after_load_checkpoint(SimpleNamespace(model=model, _resume=True), checkpoint)
        other = sharded(seed=2)
        with FSDP.state_dict_type(other, StateDictType.FULL_STATE_DICT, FullStateDictConfig()):
            other.load_state_dict(checkpoint['state_dict'])
        loaded = dict(state_dict=state(other))
        SplitCheckpointHook().before_save_checkpoint(SimpleNamespace(model=other), loaded)
        return saved, loaded, model.module.teacher.fingerprint() == fingerprint

    def test_a_checkpoint_is_plain_and_can_be_loaded(self, teachers, tmp_path):
        found = processes(2, self.train_save_load, tmp_path, teachers)
        assert isinstance(found[0], tuple), found
        saved, loaded, teacher_unchanged = found[0]
        plain = build_model(tiny_classifier(), seed=1)
        start = deepcopy(plain.state_dict())
        assert sorted(saved['state_dict']) == sorted(start) and teacher_unchanged
        plain.load_state_dict(saved['state_dict'], strict=True)
        assert not torch.equal(plain.head.fc.weight, start['head.fc.weight'])
        for entries in zip(
            (saved['state_dict'], saved[METHOD_STATE]['state_dict']),
            (loaded['state_dict'], loaded[METHOD_STATE]['state_dict']),
        ):
            assert entries[0] and all(torch.equal(value, entries[1][name]) for name, value in entries[0].items())


class TestWeightsThatSetThemselves:
    METHODS = [dict(FITNETS, w_feat='auto', balance=dict(steps=2)), dict(type='mmrkd.KD', balance=0.3)]

    @staticmethod
    def train(rank, number, teachers, methods):
        model = model_of('classifier', teachers, methods)
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        wrapped = wrap(model) if number > 1 else model
        for _ in range(3):
            wrapped.train_step(share(batch_of('classifier'), rank, number), wrapper)
        return {name: method.balance.weights for name, method in model.methods.items()}

    def test_all_processes_set_those_of_one_with_the_whole_batch(self, teachers, tmp_path):
        alone = self.train(0, 1, teachers, self.METHODS)
        found = processes(2, self.train, tmp_path, teachers, self.METHODS)
        assert all(isinstance(result, dict) for result in found), found
        assert found[0] == found[1]
        for name, weights in alone.items():
            assert found[0][name] == pytest.approx(weights, rel=1e-3) and set(weights.values()) != {1.0}


class TestFaults:
    @staticmethod
    def one_bad_batch(rank, number, teachers, on_nonfinite):
        model = wrap(model_of('classifier', teachers, [FITNETS], on_nonfinite=on_nonfinite))
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        before = deepcopy(model.module.state_dict())
        method = model.module.methods[0]
        method.w_feat = torch.nan if rank == 1 else 1.0
        model.train_step(share(batch_of('classifier'), rank, number), wrapper)
        unchanged = all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
        method.w_feat = 1.0
        model.train_step(share(batch_of('classifier'), rank, number), wrapper)
        return unchanged, model.module.state_dict()

    def test_all_processes_stop(self, teachers, tmp_path):
        """One says why; the other is left alone by it, without having asked at each step."""
        found = processes(2, self.one_bad_batch, tmp_path, teachers, 'stop')
        assert 'RuntimeError' in found[0]
        assert 'fitnets.loss_feat' in found[1]

    def test_all_processes_skip(self, teachers, tmp_path):
        found = processes(2, self.one_bad_batch, tmp_path, teachers, 'skip')
        assert all(isinstance(result, tuple) for result in found), found
        (unchanged, first), (_, second) = found
        assert unchanged and all(torch.equal(value, second[name]) for name, value in first.items())

    @staticmethod
    def die(rank, number, teachers):
        model = wrap(model_of('classifier', teachers, [ERA]))
        wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        for step in range(3):
            if rank == 1 and step == 1:
                os._exit(9)
            model.train_step(share(batch_of('classifier'), rank, number), wrapper)

    def test_if_one_dies_the_other_ends_with_an_error(self, teachers, tmp_path):
        start = time.monotonic()
        found = processes(2, self.die, tmp_path, teachers)
        assert found[1] is None and 'RuntimeError' in found[0] and time.monotonic() - start < 60
