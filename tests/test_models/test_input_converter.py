import pytest
import torch
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import BaseDataElement

from mmrkd.models.input_converter import InputConverter

IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True)
CAFFE = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)


def pixels(*sizes):
    """Random BGR images."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]


def run(student, teacher, images):
    """Returns what the converter makes of the student's batch and what the teacher's own preprocessor makes of it."""
    student, teacher = ImgDataPreprocessor(**student), ImgDataPreprocessor(**teacher)
    samples = [BaseDataElement(metainfo=dict(img_shape=tuple(image.shape[1:]))) for image in images]
    inputs = student(dict(inputs=[i.clone() for i in images]))['inputs']
    converted = InputConverter(student, teacher)(inputs, samples)
    return converted, teacher(dict(inputs=[i.clone() for i in images]))['inputs'], inputs


@pytest.mark.parametrize(
    'student, teacher',
    [
        (IMAGENET, CAFFE),
        (CAFFE, IMAGENET),
        (IMAGENET, dict(IMAGENET, mean=[0.0] * 3, std=[255.0] * 3)),
        (IMAGENET, dict(IMAGENET, bgr_to_rgb=False)),
        (IMAGENET, dict(mean=None, std=None)),
        (dict(mean=None, std=None), CAFFE),
        (dict(mean=None, std=None, bgr_to_rgb=True), dict(mean=None, std=None)),
    ],
    ids=['caffe teacher', 'caffe student', 'other scale', 'other order', 'raw teacher', 'raw student', 'order alone'],
)
def test_the_teacher_sees_what_its_own_preprocessor_would_make(student, teacher):
    converted, expected, inputs = run(student, teacher, pixels((8, 8), (8, 8)))
    assert not torch.allclose(inputs, expected, atol=0.1)
    assert torch.allclose(converted, expected, atol=1e-4)


def test_a_value_by_hand():
    student = ImgDataPreprocessor(mean=[10.0, 20.0, 30.0], std=[2.0, 4.0, 5.0], bgr_to_rgb=True)
    teacher = ImgDataPreprocessor(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0], bgr_to_rgb=False)
    # RGB pixel (12, 28, 45), as the student sees it: ((12 - 10) / 2, (28 - 20) / 4, (45 - 30) / 5)
    inputs = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
    assert InputConverter(student, teacher)(inputs).flatten().tolist() == [45 - 1, 28 - 2, 12 - 3]


def test_padding_between_images_is_filled_anew():
    student = dict(IMAGENET, pad_size_divisor=4)
    teacher = dict(CAFFE, pad_size_divisor=4, pad_value=7)
    converted, expected, _ = run(student, teacher, pixels((8, 8), (5, 6), (3, 8)))
    assert torch.allclose(converted, expected, atol=1e-4)
    assert (converted[1, :, 5:] == 7).all() and (converted[1, :, :, 6:] == 7).all()
    assert (converted[2, :, 3:] == 7).all()


@pytest.mark.parametrize('teacher', [IMAGENET, CAFFE], ids=['same pixels', 'other pixels'])
def test_a_wider_padding_is_added_below_and_on_the_right(teacher):
    teacher = dict(teacher, pad_size_divisor=16, pad_value=-3)
    converted, expected, inputs = run(dict(IMAGENET, pad_size_divisor=4, pad_value=-3), teacher, pixels((9, 20)))
    assert inputs.shape[-2:] == (12, 20)
    assert converted.shape[-2:] == expected.shape[-2:] == (16, 32)
    assert torch.allclose(converted, expected, atol=1e-4)
    assert (converted[..., 9:, :] == -3).all() and (converted[..., 20:] == -3).all()


def test_a_batch_that_is_wider_already_is_not_cut():
    converted, expected, inputs = run(
        dict(IMAGENET, pad_size_divisor=16), dict(IMAGENET, pad_size_divisor=4), pixels((9, 20))
    )
    assert converted is inputs and expected.shape[-2:] == (12, 20)


def test_equal_preprocessors_pass_the_very_same_tensor():
    student, teacher = ImgDataPreprocessor(**IMAGENET), ImgDataPreprocessor(**IMAGENET)
    inputs = torch.rand(2, 3, 8, 8)
    assert InputConverter(student, teacher)(inputs, None) is inputs


@pytest.mark.parametrize(
    'other',
    [
        dict(IMAGENET, bgr_to_rgb=False),
        dict(IMAGENET, pad_value=1),
        dict(IMAGENET, mean=[0.0] * 3),
        dict(IMAGENET, std=[1.0] * 3),
        dict(mean=None, std=None, bgr_to_rgb=True),
    ],
)
def test_what_makes_preprocessors_differ(other):
    student = ImgDataPreprocessor(**IMAGENET)
    assert not InputConverter(student, ImgDataPreprocessor(**other)).same_pixels
    assert not InputConverter(ImgDataPreprocessor(**other), student).same_pixels


@pytest.mark.parametrize(
    'student, teacher',
    [
        (IMAGENET, CAFFE),
        (IMAGENET, dict(IMAGENET, pad_size_divisor=16)),
        (IMAGENET, dict(IMAGENET, pad_value=9)),
        (dict(mean=None, std=None), dict(mean=None, std=None, pad_value=9)),
    ],
    ids=['pixels', 'size', 'filling', 'filling of raw pixels'],
)
def test_the_students_input_is_not_changed(student, teacher):
    inputs = torch.rand(1, 3, 8, 8)
    before = inputs.clone()
    samples = [BaseDataElement(metainfo=dict(img_shape=(4, 5)))]
    converted = InputConverter(ImgDataPreprocessor(**student), ImgDataPreprocessor(**teacher))(inputs, samples)
    assert converted is not inputs
    converted.fill_(0)
    assert torch.equal(inputs, before)


def test_precision_and_device_are_kept():
    converter = InputConverter(ImgDataPreprocessor(**IMAGENET), ImgDataPreprocessor(**CAFFE))
    assert converter(torch.rand(1, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64


def test_preprocessors_of_mmpretrain():
    from mmpretrain.models import ClsDataPreprocessor

    rgb = dict(mean=IMAGENET['mean'], std=IMAGENET['std'], to_rgb=True)
    bgr = dict(mean=CAFFE['mean'], std=CAFFE['std'], to_rgb=False)
    student, teacher = ClsDataPreprocessor(**rgb), ClsDataPreprocessor(**bgr)
    images = torch.stack(pixels((8, 8), (8, 8)))
    inputs = student(dict(inputs=images.clone()))['inputs']
    expected = teacher(dict(inputs=images.clone()))['inputs']
    assert torch.allclose(InputConverter(student, teacher)(inputs), expected, atol=1e-4)
    assert InputConverter(student, ClsDataPreprocessor(**rgb)).same_pixels
    assert InputConverter(student, ClsDataPreprocessor()).teacher.mean is None


class TestImgShapeThatIsStale:
    """torchvision's transforms change an image and leave ``img_shape`` as it was when the file was read."""

    @pytest.mark.parametrize('size', [(3, 3), (3, 8), (8, 3), (20, 20)])
    def test_it_blanks_nothing(self, size):
        student, teacher = ImgDataPreprocessor(**IMAGENET), ImgDataPreprocessor(**CAFFE)
        images = pixels((8, 8), (8, 8))
        inputs = student(dict(inputs=[i.clone() for i in images]))['inputs']
        samples = [BaseDataElement(metainfo=dict(img_shape=size)) for _ in images]
        expected = teacher(dict(inputs=[i.clone() for i in images]))['inputs']
        assert torch.allclose(InputConverter(student, teacher)(inputs, samples), expected, atol=1e-4)

    def test_samples_of_mmpretrain(self):
        from mmpretrain.models import ClsDataPreprocessor
        from mmpretrain.structures import DataSample

        student = ClsDataPreprocessor(mean=IMAGENET['mean'], std=IMAGENET['std'], to_rgb=True)
        teacher = ClsDataPreprocessor(mean=CAFFE['mean'], std=CAFFE['std'], to_rgb=False)
        images = torch.stack(pixels((24, 24), (24, 24)))
        samples = [DataSample(metainfo=dict(img_shape=(8, 8), ori_shape=(8, 8))).set_gt_label(0) for _ in images]
        inputs = student(dict(inputs=images.clone(), data_samples=samples))['inputs']
        expected = teacher(dict(inputs=images.clone()))['inputs']
        assert torch.allclose(InputConverter(student, teacher)(inputs, samples), expected, atol=1e-4)

    def test_one_image_is_padded_and_another_is_not(self):
        student, teacher = dict(IMAGENET, pad_value=3), dict(CAFFE, pad_value=7)
        converted, expected, _ = run(student, teacher, pixels((8, 8), (5, 6)))
        assert torch.allclose(converted, expected, atol=1e-4)


def detection_samples(preprocessor, images):
    from mmdet.structures import DetDataSample

    samples = [DetDataSample(metainfo=dict(img_shape=tuple(image.shape[1:]), img_id=7)) for image in images]
    data = preprocessor(dict(inputs=[i.clone() for i in images], data_samples=samples), False)
    return data['inputs'], data['data_samples']


class TestSamplesForTheTeacher:
    def preprocessors(self, own, other):
        from mmdet.models import DetDataPreprocessor

        return DetDataPreprocessor(**IMAGENET, pad_size_divisor=own), DetDataPreprocessor(
            **CAFFE, pad_size_divisor=other
        )

    @pytest.mark.parametrize('own, other', [(1, 32), (16, 32), (32, 64), (32, 128)])
    def test_they_say_what_the_teachers_own_preprocessor_would(self, own, other):
        student, teacher = self.preprocessors(own, other)
        images = pixels((40, 50), (33, 97), (20, 30))
        inputs, samples = detection_samples(student, images)
        before = [dict(sample.metainfo) for sample in samples]
        expected_inputs, expected = detection_samples(teacher, images)
        found_inputs, found = InputConverter(student, teacher).convert(inputs, samples)
        assert torch.allclose(found_inputs, expected_inputs, atol=1e-4)
        assert [s.metainfo for s in found] == [s.metainfo for s in expected]
        assert [dict(sample.metainfo) for sample in samples] == before, 'the samples of the user were changed'
        assert all(a is not b and type(a) is type(b) for a, b in zip(found, samples))

    def test_where_nothing_is_padded_they_are_the_very_same(self):
        student, teacher = self.preprocessors(32, 16)
        inputs, samples = detection_samples(student, pixels((40, 50)))
        assert InputConverter(student, teacher).convert(inputs, samples)[1] is samples
        assert InputConverter(student, teacher).convert(inputs, None)[1] is None

    def test_samples_that_are_a_dictionary_and_samples_that_say_nothing(self):
        student, teacher = self.preprocessors(1, 32)
        inputs = torch.rand(1, 3, 8, 8)
        samples = dict(bboxes_labels=torch.zeros(0, 6), img_metas=[dict(batch_input_shape=(8, 8))])
        found = InputConverter(student, teacher).convert(inputs, samples)[1]
        assert (
            found['img_metas'] == [dict(batch_input_shape=(32, 32))]
            and samples['img_metas'][0] != found['img_metas'][0]
        )
        silent = [BaseDataElement(metainfo=dict(img_shape=(8, 8)))]
        assert InputConverter(student, teacher).convert(inputs, silent)[1][0] is silent[0]

    def test_a_detr_predicts_what_it_predicts_alone(self):
        from mmengine.hub import get_config

        from mmrkd.testing import build_model

        cfg = get_config('mmdet::detr/detr_r50_8xb2-150e_coco.py').model.to_dict()
        cfg.update(
            _scope_='mmdet',
            num_queries=8,
            test_cfg=dict(max_per_img=8),
            data_preprocessor=dict(type='DetDataPreprocessor', **CAFFE),
        )
        cfg['data_preprocessor']['pad_size_divisor'] = 64
        cfg['backbone'].update(depth=18, base_channels=8, stem_channels=8, init_cfg=None)
        cfg['neck'].update(in_channels=[64])
        for part in ('encoder', 'decoder'):
            cfg[part]['num_layers'] = 1
        detr = build_model(cfg).eval()
        for module in detr.modules():
            if hasattr(module, 'num_batches_tracked'):
                torch.nn.init.normal_(module.weight)
        student = self.preprocessors(16, 64)[0]
        images = pixels((40, 50), (65, 70))
        expected = detr.predict(*detection_samples(detr.data_preprocessor, images), rescale=False)
        inputs, samples = detection_samples(student, images)
        inputs, samples = InputConverter(student, detr.data_preprocessor).convert(inputs, samples)
        for found, sample in zip(detr.predict(inputs, samples, rescale=False), expected):
            for key in ('scores', 'bboxes'):
                torch.testing.assert_close(found.pred_instances[key], sample.pred_instances[key], rtol=1e-4, atol=1e-4)


def test_mean_and_deviation_are_moved_once(monkeypatch):
    converter = InputConverter(ImgDataPreprocessor(**IMAGENET), ImgDataPreprocessor(**CAFFE))
    inputs = torch.rand(1, 3, 4, 4, dtype=torch.float64)  # another precision than theirs: they have to be moved
    first = converter(inputs)
    moved = []
    to = torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, 'to', lambda self, *args, **kwargs: moved.append(self) or to(self, *args, **kwargs)
    )
    assert torch.equal(converter(inputs), first) and moved == []
