"""apic.ai's bees with the targets of SimCC: a distribution over the bins of each axis."""

_base_ = './beepose.py'
codec = dict(
    type='SimCCLabel', input_size=(128, 128), sigma=(4.0, 4.0), simcc_split_ratio=2.0, normalize=False, use_dark=False
)
train_pipeline = [*_base_.train_pipeline[:-2], dict(type='GenerateTarget', encoder=codec), _base_.train_pipeline[-1]]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
