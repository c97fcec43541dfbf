"""Parts of data sets that are measured on, as folders of links."""

import os
import os.path as osp

PARTS = {'train': ('train', 0, 500), 'val': ('train', 500, 1000), 'test': ('test', 0, None)}


def cifar10_tenth(source: str, out: str) -> None:
    """Links the first 500 images of each class as ``train``, the next 500 as ``val``, all test images as ``test``.

    Args:
        source: Folder that holds ``cifar10/train/<class>/*.jpg`` and ``cifar10/test/<class>/*.jpg``.
        out: Folder for ``cifar10/``; what is there already is left.
    """
    for part, (split, first, last) in PARTS.items():
        for name in sorted(os.listdir(osp.join(source, 'cifar10', split))):
            folder = osp.join(osp.abspath(source), 'cifar10', split, name)
            target = osp.join(out, 'cifar10', part, name)
            os.makedirs(target, exist_ok=True)
            for image in sorted(os.listdir(folder))[first:last]:
                if not osp.lexists(osp.join(target, image)):
                    os.symlink(osp.join(folder, image), osp.join(target, image))


MAKERS = {'cifar10-tenth': cifar10_tenth}
