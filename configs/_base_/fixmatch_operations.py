"""The 14 operations of FixMatch (arXiv 2001.07685), two of which CRLD applies to its strong view."""

_half = dict(prob=1.0, random_negative_prob=0.5)
_down = dict(prob=1.0, random_negative_prob=1.0, magnitude_range=(0.05, 0.95))  # factors of 0.95 down to 0.05
fixmatch_operations = [
    dict(type='AutoContrast', prob=1.0),
    dict(type='AutoContrast', prob=0.0),  # identity
    dict(type='Brightness', **_down),
    dict(type='ColorTransform', **_down),
    dict(type='Contrast', **_down),
    dict(type='Equalize', prob=1.0),
    dict(type='Posterize', prob=1.0, magnitude_range=(8, 4)),
    dict(type='Rotate', magnitude_range=(0, 30), **_half),
    dict(type='Sharpness', **_down),
    dict(type='Shear', direction='horizontal', magnitude_range=(0, 0.3), **_half),
    dict(type='Shear', direction='vertical', magnitude_range=(0, 0.3), **_half),
    dict(type='Solarize', prob=1.0, magnitude_range=(256, 0)),
    dict(type='Translate', direction='horizontal', magnitude_range=(0, 0.3), **_half),
    dict(type='Translate', direction='vertical', magnitude_range=(0, 0.3), **_half),
]
strong_operations = dict(
    type='RandAugment', policies=fixmatch_operations, num_policies=2, magnitude_level=10, magnitude_std='inf'
)
grey_square = dict(type='Cutout', prob=1.0, pad_val=(114, 123, 125), magnitude_level=10, magnitude_std='inf')
del _half, _down
