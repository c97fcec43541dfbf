"""A batch of random images with objects, for timing a model without its data."""

from functools import partial
from typing import Any

import torch
from mmengine.structures import InstanceData, PixelData

from mmrkd.adapters.base import ModelAdapter
from mmrkd.adapters.detection import DetectionAdapter
from mmrkd.adapters.pose import PoseAdapter
from mmrkd.adapters.segmentation import SegmentationAdapter


def generated_batch(adapter: ModelAdapter, batch_size: int, size: tuple[int, int]) -> dict[str, Any]:
    """Returns what a dataloader would give, before the preprocessor of a model.

    Args:
        adapter: Of the model that is to read it.
        batch_size: Number of images.
        size: Height and width.

    Returns:
        ``inputs``, a list of uint8 images ``(3, H, W)``, and ``data_samples``: one label, a label of each
        pixel, the targets of keypoints, or eight boxes and masks with a quarter of the image's sides.

    Raises:
        ValueError: The model is a pose estimator for another size.
    """
    generator = torch.Generator().manual_seed(0)
    images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for _ in range(batch_size)]
    classes = adapter.num_classes or 1
    makers = {
        DetectionAdapter: _detection_sample,
        SegmentationAdapter: _segmentation_sample,
        PoseAdapter: partial(_pose_sample, codec=getattr(adapter, 'codec', None)),
    }
    make = next((make for kind, make in makers.items() if isinstance(adapter, kind)), _classification_sample)
    return dict(inputs=images, data_samples=[make(size, classes, generator) for _ in images])


def _classification_sample(size: tuple[int, int], classes: int, generator: torch.Generator) -> Any:
    from mmpretrain.structures import DataSample

    sample = DataSample(metainfo=dict(img_shape=size, ori_shape=size, num_classes=classes))
    return sample.set_gt_label(int(torch.randint(0, classes, (), generator=generator)))


def _segmentation_sample(size: tuple[int, int], classes: int, generator: torch.Generator) -> Any:
    from mmseg.structures import SegDataSample

    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.randint(0, classes, (1, *size), generator=generator))
    return sample


def _pose_sample(size: tuple[int, int], keypoints: int, generator: torch.Generator, codec: Any) -> Any:
    from mmpose.structures import PoseDataSample

    height, width = size
    if codec is None or tuple(codec.input_size) != (width, height):
        found = None if codec is None else tuple(codec.input_size)
        raise ValueError(
            f'the codec of the pose estimator has the input size (w, h) {found}, asked was {(width, height)}'
        )
    places = torch.rand(1, keypoints, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    encoded = codec.encode(places.numpy(), torch.ones(1, keypoints).numpy())
    labels = {name: torch.from_numpy(value) for name, value in encoded.items() if name.startswith('keypoint_')}
    box = dict(bboxes=[[0, 0, width, height]], bbox_centers=[[width / 2, height / 2]], bbox_scales=[[width, height]])
    instances = {name: torch.tensor(value, dtype=torch.float32).numpy() for name, value in box.items()}
    meta = dict(img_shape=size, ori_shape=size, input_size=(width, height), flip_indices=list(range(keypoints)))
    meta.update(input_center=instances['bbox_centers'][0], input_scale=instances['bbox_scales'][0])
    sample = PoseDataSample(metainfo=meta)
    sample.gt_instances = InstanceData(**instances, bbox_scores=torch.ones(1).numpy())
    sample.gt_instance_labels = InstanceData(**labels)
    if 'heatmaps' in encoded:
        sample.gt_fields = PixelData(heatmaps=torch.from_numpy(encoded['heatmaps']))
    return sample


def _detection_sample(size: tuple[int, int], classes: int, generator: torch.Generator) -> Any:
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    (height, width), count = size, 8
    corners = torch.rand(count, 2, generator=generator) * 0.75 * torch.tensor([width, height])
    boxes = torch.cat([corners, corners + 0.25 * torch.tensor([width, height])], dim=1)
    masks = torch.zeros(count, height, width, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    sample = DetDataSample(
        metainfo=dict(img_id=0, img_shape=size, ori_shape=size, pad_shape=size, scale_factor=(1.0, 1.0))
    )
    sample.gt_instances = InstanceData(
        bboxes=boxes,
        labels=torch.randint(0, classes, (count,), generator=generator),
        masks=BitmapMasks(masks.numpy(), height, width),
    )
    sample.ignored_instances = InstanceData(bboxes=boxes.new_zeros(0, 4), labels=boxes.new_zeros(0).long())
    return sample
