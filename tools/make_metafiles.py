#!/usr/bin/env python
"""Writes configs/*/metafile.yml and mmrkd/.mim/model-index.yml, by which mim and mmengine find the configs.

Name and paper come from the READMEs, models and schedule from the names of the configs; a test compares. Weights and
metrics stay out until there are some.

    python tools/make_metafiles.py [--check]
"""

import argparse
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
INDEX = 'mmrkd/.mim/model-index.yml'
COMMENT = '# Made by tools/make_metafiles.py.\n'
IMAGES, BOXES, PIXELS, POINTS = 'Image Classification', 'Object Detection', 'Semantic Segmentation', 'Body 2D Keypoint'
TASKS = {
    'bccd': ('BCCD', BOXES),
    'beepose': ('Bee pose', POINTS),
    'cifar10': ('CIFAR-10', IMAGES),
    'cifar100': ('CIFAR-100', IMAGES),
    'cityscapes': ('Cityscapes', PIXELS),
    'coco': ('COCO', BOXES),
    'coco-keypoints': ('COCO keypoints', POINTS),
    'cub200': ('CUB-200-2011', IMAGES),
    'deeppcb': ('DeepPCB', BOXES),
    'digits': ('Digit scenes', BOXES),
    'imagenet': ('ImageNet-1k', IMAGES),
    'nuclei': ('Nuclei', PIXELS),
}


def main(check: bool) -> None:
    """Writes the files, or says which of them are not what they should be."""
    texts = files()
    wrong = [path for path, text in texts.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]
    if check and wrong:
        sys.exit(f'run tools/make_metafiles.py: {", ".join(wrong)}')
    for path in () if check else wrong:
        (ROOT / path).write_text(texts[path])


def files() -> dict:
    """Path -> text."""
    folders = sorted(path.parent for path in (ROOT / 'configs').glob('*/README.md'))
    found = {f'configs/{folder.name}/metafile.yml': dumped(metafile(folder)) for folder in folders}
    return {**found, INDEX: dumped(dict(Import=list(found)))}


def metafile(folder: Path) -> dict:
    """Collection and models of a folder."""
    text = (folder / 'README.md').read_text()
    name = re.match(r'# ([^:\n]+)', text)[1]
    title, url = re.search(r'\*([^*]+)\*,\s+(?:> )?\[arXiv [\d.]+\]\(([^)]+)\)', text, flags=re.S).groups()
    readme = f'configs/{folder.name}/README.md'
    collection = dict(Name=name, Metadata=dict(Architecture=['Knowledge distillation']))
    collection.update(Paper=dict(URL=url, Title=' '.join(title.replace('>', ' ').split())), README=readme)
    configs = sorted(folder.glob('*.py'))
    return dict(Collections=[collection], Models=[model(path, name) for path in configs])


def model(path: Path, collection: str) -> dict:
    """One config."""
    method, teacher, student, schedule, dataset = path.stem.split('_')
    length, unit = re.search(r'(\d+)([xek])$', schedule).groups()
    length = int(length) * {'x': 12, 'e': 1, 'k': 1000}[unit]
    data, task = TASKS[dataset]
    return {
        'Name': path.stem,
        'In Collection': collection,
        'Config': path.relative_to(ROOT).as_posix(),
        'Metadata': {
            'Iterations' if unit == 'k' else 'Epochs': length,
            'Teacher': teacher,
            'Student': student,
            'Training Data': data,
        },
        'Results': [{'Task': task, 'Dataset': data, 'Metrics': {}}],
    }


def dumped(content: dict) -> str:
    """As OpenMMLab's metafiles look."""
    return COMMENT + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; fail where a file differs')
    main(parser.parse_args().check)
