"""RDD on Cityscapes, with the release's recipe: DeepLabV3-R101 teaches DeepLabV3-R18."""

_base_ = 'mmseg::deeplabv3/deeplabv3_r18-d8_4xb2-80k_cityscapes-512x1024.py'
runner_type = 'mmrkd.Runner'
class_weight = [0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023]
class_weight += [0.9539, 0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507]
student = _base_.model
student.decode_head.loss_decode.class_weight = class_weight  # TFE does without, as released
student.auxiliary_head.loss_decode.class_weight = class_weight
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=student,
    teacher=dict(
        cfg='mmseg::deeplabv3/deeplabv3_r101-d8_4xb2-80k_cityscapes-512x1024.py',
        ckpt='https://download.openmmlab.com/mmsegmentation/v0.5/deeplabv3/deeplabv3_r101-d8_512x1024_80k_cityscapes/'
        'deeplabv3_r101-d8_512x1024_80k_cityscapes_20200606_113503-9e428899.pth',
    ),
    methods=[dict(type='mmrkd.RDD', warmup=4000)],
)
max_iters = 40000
train_dataloader = dict(batch_size=4)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=0.02, momentum=0.9, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', eta_min=0, power=0.9, begin=0, end=max_iters, by_epoch=False)]
train_cfg = dict(max_iters=max_iters, val_interval=4000)
