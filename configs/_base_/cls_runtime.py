"""What the small classification benchmarks share: mmpretrain's runtime, one checkpoint beside the best one."""

_base_ = 'mmpretrain::_base_/default_runtime.py'
default_hooks = dict(
    logger=dict(interval=50), checkpoint=dict(interval=1, max_keep_ckpts=1, save_best='accuracy/top1', rule='greater')
)
randomness = dict(seed=0)
