"""What every small benchmark shares: mmdet's runtime, one checkpoint beside the best one, a log line every 50 steps."""

_base_ = 'mmdet::_base_/default_runtime.py'
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='coco/bbox_mAP', rule='greater')
)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
randomness = dict(seed=0)
