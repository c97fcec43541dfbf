"""RDD on nuclei: the teacher weighs the pixels of the student's cross entropy.

First train the teacher, which has an auxiliary head: configs/baselines/fpn-r18w32-aux_1xb8-48e_nuclei.py.
"""

_base_ = '../_base_/pairs/fpn-r18w32_fpn-r18w8_nuclei.py'
model = dict(
    teacher=dict(
        cfg='{{fileDirname}}/../baselines/fpn-r18w32-aux_1xb8-48e_nuclei.py',
        ckpt='{{$MMRKD_WORK_DIRS:work_dirs}}/fpn-r18w32-aux_1xb8-48e_nuclei/epoch_48.pth',
    ),
    methods=[dict(type='mmrkd.RDD', min_kept=50000)],  # of 8 x 256 x 256 pixels: about the release's tenth
)
