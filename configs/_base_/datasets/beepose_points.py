"""The 32 keypoints of apic.ai's bees, as mmpose reads them (`metainfo=dict(from_file=...)`).

A file of its own: written out in each dataset, it would take a run many seconds to print its config. The sigmas, by
which a distance counts in the AP, are ours: 0.05 for every point.
"""

legs = [
    f'{side}_leg_{leg}_{part}' for side in ('right', 'left') for leg in ('front', 'middle', 'back') for part in '1234'
]
names = [
    'head_front',
    'head_left',
    'head_right',
    'head_back',
    'body_center',
    'body_back',
    'wing_left',
    'wing_right',
    *legs,
]
mirrored = [name.replace('left', '*').replace('right', 'left').replace('*', 'right') for name in names]
points = {
    index: dict(name=name, id=index, color=[240, 200, 60], type='', swap='' if other == name else other)
    for index, (name, other) in enumerate(zip(names, mirrored))
}
dataset_info = dict(
    dataset_name='beepose', keypoint_info=points, skeleton_info={}, joint_weights=[1.0] * 32, sigmas=[0.05] * 32
)
