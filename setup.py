"""Packages mmrkd. The OpenMMLab libraries are extras: which of the two families is there is the user's choice."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'mmrkd' / 'version.py').read_text(encoding='utf-8')).group(1)


class BuildWithoutTesting(build_py):
    """Leaves out what only the tests and the support matrix need."""

    def find_package_modules(self, package, package_dir):
        """Returns the modules of a package, without those for the tests."""
        found = super().find_package_modules(package, package_dir)
        return [module for module in found if (module[0], module[1]) != ('mmrkd', 'testing')]


setup(
    name='mmrkd',
    version=VERSION,
    description='Knowledge distillation for OpenMMLab detectors and classifiers',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords='knowledge distillation, object detection, image classification, OpenMMLab, mmdet, mmpretrain',
    packages=find_packages(include=['mmrkd', 'mmrkd.*'], exclude=['mmrkd.support', 'mmrkd.support.*']),
    # .mim is where mmengine looks for the configs of a package; in a clone .mim/configs is a link to configs/.
    package_data={
        'mmrkd': [
            'py.typed',
            'demo/*.pth',
            '.mim/model-index.yml',
            *(f'.mim/configs/**/*.{kind}' for kind in ('py', 'md', 'yml')),
        ]
    },
    cmdclass={'build_py': BuildWithoutTesting},
    entry_points={'console_scripts': ['mmrkd = mmrkd.__main__:main']},
    python_requires='>=3.9',
    install_requires=[],
    extras_require={
        'onedl': [
            'onedl-mmengine==0.10.12',
            'onedl-mmcv==2.3.6',
            'onedl-mmdetection==3.5.1',
            'onedl-mmpretrain==1.3.6',
            'torch==2.11.0',
            'torchvision==0.26.0',
        ],
        'openmmlab': [
            'mmengine==0.10.7',
            'mmcv==2.1.0',
            'mmdet==3.3.0',
            'mmpretrain==1.2.0',
            'torch==2.1.2',
            'torchvision==0.16.2',
            'numpy<2',
        ],
        'segmentation': ['onedl-mmsegmentation==1.4.2', 'ftfy', 'regex', 'prettytable'],  # beside onedl
        'pose': ['mmpose==1.3.2', 'cython'],  # --no-build-isolation --no-binary xtcocotools, cython first
        'tests': ['pytest', 'pytest-xdist', 'ruff'],
        'onnx': ['onnx', 'onnxruntime'],
        'demo': ['scikit-learn', 'matplotlib'],
    },
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Typing :: Typed',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
    zip_safe=False,
)
