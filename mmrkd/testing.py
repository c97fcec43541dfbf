"""Tiny models and generated batches for tests: no download, a fraction of a second each."""

import os.path as osp
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from torch import nn

from mmrkd.registry import MODELS

NUM_CLASSES = 4
NUM_KEYPOINTS = 3


def tiny_retinanet(width: int = 8, neck_width: int = 16, strides: Sequence[int] = (8, 16, 32), **head: Any) -> dict:
    """RetinaNet on a ResNet-18 of ``width`` channels, with an FPN of ``neck_width`` channels.

    Args:
        width: Channels of the stem and the first stage.
        neck_width: Channels of the FPN and the head.
        strides: Levels of the FPN, consecutive powers of two from 4 or 8 upwards.
        **head: Overrides of the head's config.
    """
    return dict(
        type='RetinaNet',
        _scope_='mmdet',
        data_preprocessor=_det_preprocessor(),
        backbone=_det_backbone(width),
        neck=_fpn(width, neck_width, strides),
        bbox_head=dict(
            dict(
                type='RetinaHead',
                num_classes=NUM_CLASSES,
                in_channels=neck_width,
                stacked_convs=1,
                feat_channels=neck_width,
                anchor_generator=dict(
                    type='AnchorGenerator',
                    octave_base_scale=4,
                    scales_per_octave=1,
                    ratios=[0.5, 1.0, 2.0],
                    strides=list(strides),
                ),
                bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
                loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
                loss_bbox=dict(type='L1Loss', loss_weight=1.0),
            ),
            **head,
        ),
        train_cfg=dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
            sampler=dict(type='PseudoSampler'),
            allowed_border=-1,
            pos_weight=-1,
            debug=False,
        ),
        test_cfg=dict(
            nms_pre=100, min_bbox_size=0, score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20
        ),
    )


def tiny_gfl(width: int = 8, neck_width: int = 16, reg_max: int = 3) -> dict:
    """GFL, whose head regresses a distribution of ``reg_max + 1`` values for each side of a box."""
    cfg = tiny_retinanet(width, neck_width)
    anchors = dict(type='AnchorGenerator', ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8, 16, 32])
    cfg.update(
        type='GFL',
        bbox_head=dict(
            type='GFLHead',
            num_classes=NUM_CLASSES,
            in_channels=neck_width,
            stacked_convs=1,
            feat_channels=neck_width,
            norm_cfg=None,
            reg_max=reg_max,
            anchor_generator=anchors,
            loss_cls=dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=1.0),
            loss_dfl=dict(type='DistributionFocalLoss', loss_weight=0.25),
            loss_bbox=dict(type='GIoULoss', loss_weight=2.0),
        ),
    )
    cfg['train_cfg']['assigner'] = dict(type='ATSSAssigner', topk=9)
    return cfg


def tiny_faster_rcnn(width: int = 8, neck_width: int = 16, num_classes: int = NUM_CLASSES) -> dict:
    """Faster R-CNN with five FPN levels (strides 4 to 64)."""
    from mmengine.hub import get_config

    cfg = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model.to_dict()
    cfg.update(
        _scope_='mmdet',
        data_preprocessor=_det_preprocessor(),
        backbone=_det_backbone(width),
        neck=dict(type='FPN', in_channels=[width * 2**i for i in range(4)], out_channels=neck_width, num_outs=5),
    )
    cfg['rpn_head'].update(in_channels=neck_width, feat_channels=neck_width)
    cfg['roi_head']['bbox_roi_extractor']['out_channels'] = neck_width
    cfg['roi_head']['bbox_head'].update(in_channels=neck_width, fc_out_channels=32, num_classes=num_classes)
    cfg['train_cfg']['rpn_proposal'].update(nms_pre=50, max_per_img=50)
    cfg['train_cfg']['rcnn']['sampler']['num'] = 32
    cfg['test_cfg']['rpn'].update(nms_pre=50, max_per_img=50)
    cfg['test_cfg']['rcnn'].update(score_thr=0.0, max_per_img=20)
    return cfg


def tiny_classifier(width: int = 8, num_classes: int = NUM_CLASSES) -> dict:
    """ResNet-18 for 32 x 32 images; its pooled feature has ``8 * width`` channels."""
    return dict(
        type='ImageClassifier',
        _scope_='mmpretrain',
        data_preprocessor=dict(
            type='ClsDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, to_rgb=True, num_classes=num_classes
        ),
        backbone=dict(
            type='ResNet_CIFAR', depth=18, base_channels=width, stem_channels=width, num_stages=4, out_indices=(3,)
        ),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(
            type='LinearClsHead',
            num_classes=num_classes,
            in_channels=8 * width,
            loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        ),
    )


def paired(cfg: dict, student: int, assistant: int) -> dict:
    """Puts a student and an assistant of so many base channels in the place of a tiny model's backbone.

    Stages that the neck does not read are left out.
    """
    cfg = deepcopy(cfg)
    part, neck = cfg['backbone'], cfg['neck']
    width, start = part['base_channels'], neck.get('start_level', 0)
    indices = part['out_indices'][start:]
    if start:
        neck.update(in_channels=neck['in_channels'][start:], start_level=0)
    parts = [dict(part, base_channels=w, stem_channels=w, out_indices=indices) for w in (student, assistant)]
    cfg['backbone'] = dict(
        type='mmrkd.ResidualPairBackbone',
        student=parts[0],
        assistant=parts[1],
        out_channels=[width * 2**index for index in indices],
    )
    return cfg


def detection_batch(num_images: int = 2, size: int = 96, num_classes: int = NUM_CLASSES, seed: int = 0) -> dict:
    """Random images with two boxes each, in the form that a dataloader gives to a data preprocessor."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for index in range(num_images):
        images.append(torch.randint(0, 256, (3, size, size), generator=generator, dtype=torch.uint8))
        corner = torch.rand(2, 2, generator=generator) * size * 0.4
        extent = (0.2 + 0.3 * torch.rand(2, 2, generator=generator)) * size
        labels = torch.randint(0, num_classes, (2,), generator=generator)
        sample = DetDataSample(gt_instances=InstanceData(bboxes=torch.cat([corner, corner + extent], 1), labels=labels))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        shape = dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0), img_id=index)
        sample.set_metainfo(shape)
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def annotated_batch(num_images: int = 2, size: int = 96, num_classes: int = NUM_CLASSES, seed: int = 0) -> dict:
    """As :func:`detection_batch`, with all else that a detector may ask for: masks, a semantic map, proposals."""
    import numpy as np
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData, PixelData

    batch = detection_batch(num_images, size, num_classes, seed)
    for sample in batch['data_samples']:
        masks = np.zeros((2, size, size), dtype=np.uint8)
        semantic = torch.full((1, size, size), 255)
        boxes = sample.gt_instances.bboxes
        for mask, box, label in zip(masks, boxes.int().tolist(), sample.gt_instances.labels):
            mask[box[1] : box[3], box[0] : box[2]] = 1
            semantic[:, box[1] : box[3], box[0] : box[2]] = label
        sample.gt_instances.masks = BitmapMasks(masks, size, size)
        sample.gt_sem_seg = PixelData(sem_seg=semantic)
        near = torch.cat([boxes, boxes + 4, boxes - 4, boxes * 0.8]).clamp(0, size)
        sample.proposals = InstanceData(bboxes=near, scores=torch.linspace(1, 0.1, len(near)))
        sample.set_metainfo(dict(batch_input_shape=(size, size), pad_shape=(size, size), border=[0, size, 0, size]))
    return batch


def classification_batch(
    num_images: int = 4, size: int = 32, num_classes: int = NUM_CLASSES, seed: int = 0, channels: int = 3
) -> dict:
    """Random images with labels, in the form that a dataloader gives to a data preprocessor."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, channels, size, size), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, num_classes, (num_images,), generator=generator).tolist()
    return dict(inputs=images, data_samples=[DataSample().set_gt_label(label) for label in labels])


def tiny_segmentor(width: int = 8, channels: int = 8, head: str = 'FCNHead', aux: bool = True, **decode: Any) -> dict:
    """A dilated ResNet-18 (strides 4, 8, 8, 8) with a decode head on its last map and an FCN head on the one before.

    Args:
        width: Channels of the stem and the first stage.
        channels: Channels inside the heads.
        head: Type of the decode head.
        aux: Whether there is the auxiliary head.
        **decode: Overrides of the decode head's config.
    """
    norm = dict(type='BN', requires_grad=True)
    common = dict(num_classes=NUM_CLASSES, norm_cfg=norm, channels=channels, align_corners=False)
    cfg = dict(
        type='EncoderDecoder',
        _scope_='mmseg',
        data_preprocessor=dict(
            type='SegDataPreProcessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, size_divisor=16
        ),
        backbone=dict(
            type='ResNet',
            depth=18,
            base_channels=width,
            stem_channels=width,
            strides=(1, 2, 1, 1),
            dilations=(1, 1, 2, 4),
            norm_cfg=norm,
        ),
        decode_head=dict(dict(common, type=head, in_channels=8 * width, in_index=3, dropout_ratio=0.1), **decode),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    if aux:
        cfg['auxiliary_head'] = dict(
            common, type='FCNHead', in_channels=4 * width, in_index=2, num_convs=1, concat_input=False
        )
        cfg['auxiliary_head']['loss_decode'] = dict(type='CrossEntropyLoss', loss_weight=0.4)
    return cfg


def segmentation_batch(
    num_images: int = 2, size: tuple[int, int] = (64, 64), num_classes: int = NUM_CLASSES, seed: int = 0
) -> dict:
    """Random images with the class of each pixel (255 on one column), in the form that a dataloader gives."""
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, 3, *size), generator=generator, dtype=torch.uint8)
    samples = []
    for _ in range(num_images):
        labels = torch.randint(0, num_classes, (1, *size), generator=generator)
        labels[..., 0] = 255
        meta = dict(img_shape=size, ori_shape=size, pad_shape=size)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
    return dict(inputs=list(images), data_samples=samples)


def tiny_pose(head: str = 'heatmaps', width: int = 8, size: tuple[int, int] = (64, 96), **cfg: Any) -> dict:
    """A pose estimator of three keypoints on a ResNet-18 (stride 32).

    Args:
        head: ``'heatmaps'``, by three deconvolutions of ``width`` channels at stride 4; ``'coordinates'``, RTMPose's.
        width: Channels of the stem and the first stage.
        size: Width and height of the input.
        **cfg: Overrides of the head's config.
    """
    # mmpose begins with weights near 0, with which every picture has the same outputs
    weights = [dict(type='Normal', layer=['Conv2d', 'ConvTranspose2d', 'Linear'], std=0.2)]
    heatmaps = dict(type='MSRAHeatmap', input_size=size, heatmap_size=(size[0] // 4, size[1] // 4), sigma=2)
    bins = dict(
        type='SimCCLabel', input_size=size, sigma=(4.9, 5.66), simcc_split_ratio=2.0, normalize=False, use_dark=False
    )
    heads = dict(
        heatmaps=dict(
            type='HeatmapHead',
            deconv_out_channels=(width,) * 3,
            deconv_kernel_sizes=(4,) * 3,
            loss=dict(type='KeypointMSELoss', use_target_weight=True),
            decoder=heatmaps,
        ),
        coordinates=dict(
            type='RTMCCHead',
            input_size=size,
            in_featuremap_size=(size[0] // 32, size[1] // 32),
            final_layer_kernel_size=3,
            gau_cfg=dict(
                hidden_dims=16,
                s=8,
                expansion_factor=2,
                dropout_rate=0.0,
                drop_path=0.0,
                act_fn='SiLU',
                use_rel_bias=False,
                pos_enc=False,
            ),
            loss=dict(type='KLDiscretLoss', use_target_weight=True, beta=10.0, label_softmax=True),
            decoder=bins,
        ),
    )
    return dict(
        type='TopdownPoseEstimator',
        _scope_='mmpose',
        data_preprocessor=dict(type='PoseDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True),
        backbone=dict(type='ResNet', depth=18, base_channels=width, stem_channels=width),
        head=dict(dict(heads[head], in_channels=8 * width, out_channels=NUM_KEYPOINTS, init_cfg=weights), **cfg),
        test_cfg=dict(flip_test=False),
    )


def pose_batch(codec: Any, num_images: int = 2, seed: int = 0) -> dict:
    """Random crops with three keypoints each, the last of which is invisible in the first crop, and their targets.

    Args:
        codec: That of the student's head, built.
        num_images: Number of crops.
        seed: Of the random numbers.
    """
    import numpy as np
    from mmengine.structures import InstanceData, PixelData
    from mmpose.structures import PoseDataSample

    rng, (width, height) = np.random.default_rng(seed), codec.input_size
    images, samples = [], []
    for index in range(num_images):
        keypoints = (rng.random((1, NUM_KEYPOINTS, 2)) * (width - 1, height - 1)).astype(np.float32)
        visible = np.ones((1, NUM_KEYPOINTS), dtype=np.float32)
        visible[0, -1] = index > 0
        encoded = codec.encode(keypoints, visible)
        sample = PoseDataSample(
            gt_instances=InstanceData(
                bboxes=np.array([[0, 0, 2 * width, 2 * height]], dtype=np.float32),
                bbox_centers=np.array([[width, height]], dtype=np.float32),
                bbox_scales=np.array([[2 * width, 2 * height]], dtype=np.float32),
                bbox_scores=np.ones(1, dtype=np.float32),
                keypoints=2 * keypoints,
                keypoints_visible=visible,
            )
        )
        labels = {k: torch.from_numpy(encoded[k]) for k in encoded if k.startswith('keypoint_')}
        sample.gt_instance_labels = InstanceData(**labels)
        if 'heatmaps' in encoded:
            sample.gt_fields = PixelData(heatmaps=torch.from_numpy(encoded['heatmaps']))
        # the crop was cut out of a picture of another size
        meta = dict(input_size=(width, height), img_shape=(20, 24), ori_shape=(20, 24), flip_indices=[1, 0, 2])
        place = dict(input_center=np.array([width, height]), input_scale=np.array([2 * width, 2 * height]))
        sample.set_metainfo(dict(meta, **place, id=index, img_id=index))
        samples.append(sample)
        images.append(torch.from_numpy(rng.integers(0, 256, (3, height, width), dtype=np.uint8)))
    return dict(inputs=images, data_samples=samples)


def save_random_teacher(cfg: dict, folder: str, seed: int = 0) -> dict:
    """Builds and initialises a model, saves its weights, and returns the ``teacher=`` argument of a distiller."""
    model = build_model(cfg, seed)
    path = osp.join(str(folder), f'teacher_{seed}.pth')
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return dict(cfg=cfg, ckpt=path)


def build_model(cfg: dict, seed: int = 0) -> nn.Module:
    """Builds any model config with weights drawn from ``seed``."""
    init_default_scope(cfg.get('_scope_', 'mmrkd'))
    torch.manual_seed(seed)
    model = MODELS.build(ConfigDict(deepcopy(cfg)))
    model.init_weights()
    return model


def build_distiller(student: dict, teacher: dict, methods: Sequence[dict], seed: int = 0, **kwargs: Any) -> nn.Module:
    """Builds and initialises a distiller."""
    cfg = dict(type='mmrkd.Distiller', student=student, teacher=teacher, methods=list(methods), **kwargs)
    return build_model(cfg, seed)


def model_inputs(model: nn.Module, batch: dict, training: bool = True) -> tuple[torch.Tensor, list]:
    """Runs the model's data preprocessor on a copy of a batch and returns inputs and data samples."""
    data = model.data_preprocessor(deepcopy(batch), training)
    return data['inputs'], data['data_samples']


def _det_preprocessor() -> dict:
    return dict(type='DetDataPreprocessor', mean=[127.5] * 3, std=[127.5] * 3, bgr_to_rgb=True, pad_size_divisor=32)


def _det_backbone(width: int) -> dict:
    return dict(
        type='ResNet',
        depth=18,
        base_channels=width,
        stem_channels=width,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=True),
        norm_eval=False,
        style='pytorch',
    )


def _fpn(width: int, neck_width: int, strides: Sequence[int]) -> dict:
    start = {4: 0, 8: 1}[strides[0]]
    return dict(
        type='FPN',
        in_channels=[width * 2**i for i in range(4)],
        out_channels=neck_width,
        start_level=start,
        add_extra_convs='on_input',
        num_outs=len(strides),
    )
