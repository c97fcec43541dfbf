"""ERA on COCO keypoints, the last map of the backbone: RTMPose-l teaches RTMPose-s."""

_base_ = 'mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-s_8xb256-420e_coco-256x192.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmpose::body_2d_keypoint/rtmpose/coco/rtmpose-l_8xb256-420e_coco-256x192.py',
        ckpt='https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/'
        'rtmpose-l_simcc-coco_pt-aic-coco_420e-256x192-1352a4d2_20230127.pth',
    ),
    methods=[dict(type='mmrkd.ERA')],
)
val_cfg = dict(type='mmrkd.VariantValLoop', variants=('student', 'integrated'))
test_cfg = dict(type='mmrkd.VariantTestLoop', variants=('student', 'integrated'))
# Found in mmpose: the path that it has itself is that of another file in a clone of mmrkd.
keypoints = dict(metainfo=dict(from_file='mmpose/coco.py'))
train_dataloader = dict(dataset=keypoints)
val_dataloader = dict(dataset=keypoints)
test_dataloader = dict(dataset=keypoints)
