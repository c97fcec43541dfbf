import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.runner import Runner
from torch import nn

from mmrkd.checkpoint import BrokenCheckpointError, load_checkpoint_file, load_strictly
from mmrkd.testing import tiny_retinanet


class RunsCode:
    """Unpickling it makes a folder."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def small_model():
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def save(obj, path, **kwargs):
    torch.save(obj, path, **kwargs)
    return str(path)


@pytest.fixture(params=['torch now', 'torch before 2.6'])
def reader(request, monkeypatch):
    """Older torch has no list of harmless names to add to: mmrkd narrows its unpickler there."""
    if request.param == 'torch before 2.6':
        monkeypatch.setattr('mmrkd.checkpoint.release', lambda _: (2, 1, 0))


@pytest.mark.usefixtures('reader')
class TestLoadCheckpointFile:
    def test_missing_file_is_named_with_the_folder_that_was_searched(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(FileNotFoundError) as error:
            load_checkpoint_file('no/such/teacher.pth')
        assert 'no/such/teacher.pth' in str(error.value)
        assert str(tmp_path) in str(error.value)

    def test_a_folder_is_no_checkpoint_file(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=tmp_path.name):
            load_checkpoint_file(str(tmp_path))

    @pytest.mark.parametrize('content', [b'', b'version https://git-lfs.github.com/spec/v1\n', b'\x00' * 100])
    def test_files_that_are_no_checkpoints(self, tmp_path, content):
        path = tmp_path / 'teacher.pth'
        path.write_bytes(content)
        with pytest.raises(BrokenCheckpointError, match=r'teacher\.pth.* is no checkpoint: .* begins with'):
            load_checkpoint_file(str(path))

    @pytest.mark.parametrize('keep', [0.3, 0.9])
    def test_a_download_that_broke_off(self, tmp_path, keep):
        whole = save(dict(state_dict=small_model().state_dict()), tmp_path / 'whole.pth')
        content = open(whole, 'rb').read()
        path = tmp_path / 'teacher.pth'
        path.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(ValueError, match=r'teacher\.pth.* no checkpoint'):
            load_checkpoint_file(str(path))

    def test_a_zip_file_of_something_else(self, tmp_path):
        with zipfile.ZipFile(tmp_path / 'teacher.pth', 'w') as archive:
            archive.writestr('readme.txt', 'hello')
        with pytest.raises(ValueError, match=r'teacher\.pth'):
            load_checkpoint_file(str(tmp_path / 'teacher.pth'))

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_a_pickle_that_would_run_code_does_not(self, tmp_path, zipped):
        evidence = tmp_path / 'evidence'
        content = dict(state_dict=small_model().state_dict(), extra=RunsCode(evidence))
        path = save(content, tmp_path / 'teacher.pth', _use_new_zipfile_serialization=zipped)
        with pytest.raises(ValueError) as error:
            load_checkpoint_file(path)
        assert not evidence.exists()
        message = str(error.value)
        assert 'teacher.pth' in message and 'run code' in message and 'allow_pickle=True' in message
        assert 'mkdir' in message

    def test_a_plain_pickle_that_would_run_code_does_not(self, tmp_path):
        evidence = tmp_path / 'evidence'
        (tmp_path / 'teacher.pth').write_bytes(pickle.dumps(dict(state_dict=RunsCode(evidence))))
        with pytest.raises(ValueError, match=r'teacher\.pth'):
            load_checkpoint_file(str(tmp_path / 'teacher.pth'))
        assert not evidence.exists()

    def test_getattr_inside_a_checkpoint_reaches_nothing(self, tmp_path):
        """The log histories of mmengine ask for ``getattr``; that must not open a way to other objects."""

        class Reach:
            def __reduce__(self):
                return getattr, (torch.Tensor, 'tolist')

        path = save(dict(state_dict=small_model().state_dict(), extra=Reach()), tmp_path / 'teacher.pth')
        try:
            extra = load_checkpoint_file(path)['extra']
        except ValueError:
            return
        assert not callable(extra) and type(extra).__module__.startswith('mmrkd')

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_a_trusted_file_is_loaded_on_request(self, tmp_path, zipped):
        evidence = tmp_path / 'evidence'
        weights = small_model().state_dict()
        content = dict(state_dict=weights, extra=RunsCode(evidence))
        path = save(content, tmp_path / 'teacher.pth', _use_new_zipfile_serialization=zipped)
        loaded = load_checkpoint_file(path, allow_pickle=True)
        assert evidence.is_dir()
        assert torch.equal(loaded['state_dict']['0.weight'], weights['0.weight'])

    @pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
    def test_a_state_dict_alone_is_wrapped(self, tmp_path, zipped):
        weights = small_model().state_dict()
        path = save(weights, tmp_path / 'weights.pth', _use_new_zipfile_serialization=zipped)
        loaded = load_checkpoint_file(path)
        assert list(loaded['state_dict']) == list(weights)
        assert all(torch.equal(loaded['state_dict'][k], v) for k, v in weights.items())

    def test_weights_under_model_are_found(self, tmp_path):
        weights = small_model().state_dict()
        loaded = load_checkpoint_file(save(dict(model=weights, epoch=3), tmp_path / 'weights.pth'))
        assert list(loaded['state_dict']) == list(weights)

    @pytest.mark.parametrize(
        'content, message',
        [
            ([1, 2], 'holds a list'),
            (torch.zeros(3), 'holds a Tensor'),
            ({}, 'holds no weights'),
            ({'state_dict': {}}, 'holds no weights'),
            ({'state_dict': {'a': 1.0}}, 'holds no weights'),
            ({'epoch': 3}, 'holds no weights'),
        ],
    )
    def test_checkpoints_without_weights(self, tmp_path, content, message):
        with pytest.raises(ValueError, match=message):
            load_checkpoint_file(save(content, tmp_path / 'teacher.pth'))

    def test_numpy_scalars_and_arrays_are_harmless(self, tmp_path):
        content = dict(
            state_dict=small_model().state_dict(),
            meta=dict(best=np.float64(0.5), palette=np.arange(6, dtype=np.uint8), count=np.int64(3)),
        )
        meta = load_checkpoint_file(save(content, tmp_path / 'teacher.pth'))['meta']
        assert meta['best'] == 0.5 and meta['count'] == 3
        assert meta['palette'].tolist() == [0, 1, 2, 3, 4, 5]

    def test_what_the_runner_of_mmengine_saves(self, tmp_path):
        """It holds an optimiser, schedulers, class names and the log histories of a message hub."""
        model = small_model()
        runner = Runner(
            model=_trainable(model),
            work_dir=str(tmp_path),
            train_dataloader=dict(
                batch_size=1,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=[torch.ones(3, 4, 4) for _ in range(2)],
            ),
            train_cfg=dict(by_epoch=True, max_epochs=1),
            optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
            param_scheduler=dict(type='MultiStepLR', milestones=[1]),
            default_hooks=dict(logger=dict(type='LoggerHook', interval=1)),
            experiment_name='test_what_the_runner_of_mmengine_saves',
            default_scope='mmengine',
        )
        runner.train()
        path = str(tmp_path / 'epoch_1.pth')
        plain = torch.load(path, weights_only=False)
        assert plain['message_hub']['log_scalars'], 'the histories that this test is about are missing'
        loaded = load_checkpoint_file(path)
        assert set(loaded) == {'meta', 'state_dict', 'message_hub', 'optimizer', 'param_schedulers'}
        assert list(loaded['state_dict']) == list(model.state_dict())
        assert all(torch.equal(loaded['state_dict'][k], v) for k, v in model.state_dict().items())
        assert loaded['meta']['epoch'] == 1
        momentum = loaded['optimizer']['state'][0]['momentum_buffer']
        assert torch.equal(momentum, plain['optimizer']['state'][0]['momentum_buffer'])


def _trainable(net):
    from mmengine.model import BaseModel

    class Trainable(BaseModel):
        def __init__(self):
            super().__init__()
            for name, module in net.named_children():
                self.add_module(name, module)

        def forward(self, inputs, mode='tensor'):
            return dict(loss=net(torch.stack(list(inputs))).square().mean())

        def train_step(self, data, optim_wrapper):
            loss = self.forward(data)['loss']
            optim_wrapper.update_params(loss)
            return dict(loss=loss)

    return Trainable()


class TestLoadStrictly:
    def test_weights_that_fit_are_loaded(self):
        source, target = small_model(), small_model()
        source[1].running_mean.fill_(3.0)
        load_strictly(target, source.state_dict(), 'teacher.pth')
        assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())

    def test_the_prefix_of_a_parallel_wrapper_is_removed(self):
        source, target = small_model(), small_model()
        load_strictly(target, {f'module.{k}': v for k, v in source.state_dict().items()}, 'teacher.pth')
        assert torch.equal(target[0].weight, source[0].weight)

    def test_counters_that_old_checkpoints_lack_are_not_missed(self):
        source, target = small_model(), small_model()
        weights = {k: v for k, v in source.state_dict().items() if not k.endswith('num_batches_tracked')}
        assert len(weights) == len(source.state_dict()) - 1
        load_strictly(target, weights, 'teacher.pth')
        assert torch.equal(target[0].weight, source[0].weight)

    def test_what_the_model_passes_over_itself_is_not_missed(self):
        """Swin V2 drops its position tables from a file, because it computes them anew."""
        target = small_model()
        target._register_load_state_dict_pre_hook(lambda weights, *_: weights.pop('1.running_mean', None))
        source = small_model()
        source[1].running_mean.fill_(3.0)
        load_strictly(target, source.state_dict(), 'teacher.pth')
        assert torch.equal(target[0].weight, source[0].weight) and target[1].running_mean.sum() == 0
        weights = source.state_dict()
        del weights['1.running_mean']
        with pytest.raises(ValueError, match=r'1 missing keys \(1.running_mean\)'):
            load_strictly(target, weights, 'teacher.pth')

    def test_every_misfit_is_listed(self):
        model = small_model()
        weights = OrderedDict((k, v + 1) for k, v in small_model().state_dict().items())
        del weights['1.running_mean']
        weights['extra.weight'] = torch.zeros(1)
        weights['0.weight'] = torch.zeros(8, 3, 1, 1)
        with pytest.raises(ValueError) as error:
            load_strictly(model, weights, 'teacher.pth')
        message = str(error.value)
        assert message.startswith('teacher.pth does not fit Sequential')
        assert '1 missing keys (1.running_mean)' in message
        assert '1 unexpected keys (extra.weight)' in message
        assert '1 other shapes (0.weight: expected (4, 3, 1, 1), found (8, 3, 1, 1))' in message
        assert 'Is the config the one that the checkpoint was trained with?' in message

    @pytest.mark.parametrize('change', ['missing', 'unexpected', 'other shapes'])
    def test_one_misfit_is_enough(self, change):
        weights = small_model().state_dict()
        if change == 'missing':
            del weights['1.running_var']
        elif change == 'unexpected':
            weights['2.weight'] = torch.zeros(1)
        else:
            weights['1.bias'] = torch.zeros(5)
        with pytest.raises(ValueError) as error:
            load_strictly(small_model(), weights, 'teacher.pth')
        message = str(error.value)
        assert f'1 {change}' in message and message.count('(') == (3 if change == 'other shapes' else 1)

    def test_long_lists_are_cut(self):
        model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(10)])
        with pytest.raises(ValueError, match=r'20 missing keys \(.*, and 14 more\)'):
            load_strictly(model, {'a': torch.zeros(1)}, 'teacher.pth')

    def test_a_head_with_other_classes_is_named(self):
        from mmrkd.testing import build_model

        other = tiny_retinanet()
        other['bbox_head']['num_classes'] = 7
        with pytest.raises(ValueError) as error:
            load_strictly(build_model(tiny_retinanet()), build_model(other).state_dict(), 'teacher.pth')
        message = str(error.value)
        assert 'bbox_head.retina_cls.weight: expected (12, 16, 3, 3), found (21, 16, 3, 3)' in message
        assert 'other classes' in message and 'num_classes' in message
        assert 'missing' not in message and 'unexpected' not in message
