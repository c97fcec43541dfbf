import torch
from mmengine.structures import InstanceData
from PIL import Image

from mmrkd.testing import detection_batch
from mmrkd.visualization import compare_detections


class OneImage(list):
    metainfo = dict(classes=('a', 'b', 'c', 'd'))


class Seer(torch.nn.Module):
    """Sees one box of class 2 at the given score, and records the scale factor it was asked for."""

    def __init__(self, score):
        super().__init__()
        self.score = score

    def test_step(self, batch):
        (sample,) = batch['data_samples']
        self.scale_factor = sample.scale_factor
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 20.0, 60.0, 70.0]]),
            labels=torch.tensor([2]),
            scores=torch.tensor([self.score]),
        )
        return [sample]


def colours(path):
    return set(Image.open(path).convert('RGB').getdata())


def test_boxes_above_the_threshold_are_drawn_on_the_image_as_it_is(tmp_path):
    batch = detection_batch(1)
    sample = batch['data_samples'][0]
    sample.gt_instances = sample.gt_instances[:0]
    sample.set_metainfo(dict(scale_factor=(0.5, 0.5)))
    dataset = OneImage([dict(inputs=torch.zeros_like(batch['inputs'][0]), data_samples=sample)])
    green = (44, 160, 44)  # colour of class 2
    faint, clear = Seer(0.2), Seer(0.9)
    compare_detections({'faint': faint}, dataset, [0], str(tmp_path / 'faint.png'))
    compare_detections({'clear': clear}, dataset, [0], str(tmp_path / 'clear.png'))
    assert green not in colours(tmp_path / 'faint.png') and green in colours(tmp_path / 'clear.png')
    assert clear.scale_factor == (1.0, 1.0) and sample.scale_factor == (0.5, 0.5)
