"""ResidualKD on COCO: RetinaNet-R50 (2x, 37.4 AP) teaches a RetinaNet-R18 whose backbone was separated.

First train the pair on ImageNet: residual-kd_resnet34_resnet18-pair_8xb32-100e_imagenet.py.
"""

_base_ = ['mmdet::retinanet/retinanet_r18_fpn_1x_coco.py', '../_base_/models/resnet18_pair_backbone.py']
pair = _base_.pair_backbone
for part in (pair.student, pair.assistant):
    part.out_indices = (1, 2, 3)  # the neck does not read the first stage
pair.out_channels = pair.out_channels[1:]
_base_.model.backbone = pair
_base_.model.neck.update(in_channels=pair.out_channels, start_level=0)
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmdet::retinanet/retinanet_r50_fpn_2x_coco.py',
        ckpt='https://download.openmmlab.com/mmdetection/v2.0/retinanet/retinanet_r50_fpn_2x_coco/'
        'retinanet_r50_fpn_2x_coco_20200131-fdb43119.pth',
    ),
    methods=[dict(type='mmrkd.ResidualKD')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'student_alone'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('integrated', 'student_alone'))
