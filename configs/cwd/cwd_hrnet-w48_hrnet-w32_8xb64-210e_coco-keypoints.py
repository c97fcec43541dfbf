"""CWD on COCO keypoints, the last map of the backbone: HRNet-W48 teaches HRNet-W32."""

_base_ = 'mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_hrnet-w32_8xb64-210e_coco-256x192.py'
runner_type = 'mmrkd.Runner'
model = dict(
    _delete_=True,
    type='mmrkd.Distiller',
    student=_base_.model,
    teacher=dict(
        cfg='mmpose::body_2d_keypoint/topdown_heatmap/coco/td-hm_hrnet-w48_8xb32-210e_coco-256x192.py',
        ckpt='https://download.openmmlab.com/mmpose/v1/body_2d_keypoint/topdown_heatmap/coco/'
        'td-hm_hrnet-w48_8xb32-210e_coco-256x192-0e67c616_20220913.pth',
    ),
    methods=[dict(type='mmrkd.CWD', w_cwd=0.01, tau=1.0)],
)
# Found in mmpose: the path that it has itself is that of another file in a clone of mmrkd.
keypoints = dict(metainfo=dict(from_file='mmpose/coco.py'))
train_dataloader = dict(dataset=keypoints)
val_dataloader = dict(dataset=keypoints)
test_dataloader = dict(dataset=keypoints)
