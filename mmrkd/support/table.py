"""The support matrix as a page of the documentation."""

from typing import Any

from mmrkd.support.families import NOT_CLASSIFIERS, NOT_DETECTORS, RECIPES, stock_names

INTRODUCTION = """# Support matrix

Which model families work as student and as teacher. Made by `python tools/support_matrix.py`; do not edit by hand.

For each row the stock config is the teacher (random weights, loaded from a file) and a small variant of it the student
(on ResNet-18 where it stands on ResNet-50, else the same config). Two training iterations and one prediction as each
variant run on the CPU with generated images, boxes, masks and labels; all losses are finite, the student's backbone
gets a gradient, and the teacher's weights and buffers hash to what they were. Only what costs time is smaller than in
the stock config (images, proposals, queries; ERA has two small branches), and no pretrained weights are downloaded.

*Features* are strides and channels of what the teacher gives to its head. `ERA` is ERA with TWI (and with the KL term
on the head's outputs, unless a remark says that it is off because the heads have no dense classification grid);
`FitNets` is plain feature distillation, and stands for every method that needs features alone.
"""


OTHER_LIBRARIES = """## Other libraries

- **mmseg** has a [page of its own](support_matrix_segmentation.md), **mmpose** [another](pose.md).
- **mmrotate** (onedl-mmrotate 1.2.1, tried by hand): its detectors are mmdet's, and the adapter for detectors takes
  them. Rotated RetinaNet and Oriented R-CNN, ResNet-50 to ResNet-18, train a step with FitNets, ERA with TWI and KD of
  the classes; losses are finite, and the teacher's weights hash to what they were. Boxes of five or six values are not
  compared: `w_box` is 0 there, and a weight is refused by name. Rotated ATSS and FCOS with the IoU of rotated boxes
  need operators that mmcv has for GPUs alone.
- **mmyolo** 0.6.0 refuses every mmcv from 2.1 on when it is imported, so that it runs beside neither of the two stacks.
"""


def render(results: dict[str, dict[str, Any]]) -> str:
    """Returns the page.

    Args:
        results: ``'mmdet::folder/config.py'`` -> what :func:`mmrkd.support.trial.try_config` returned.
    """
    parts = [INTRODUCTION]
    for title, library in (('Detectors and instance segmenters (mmdet)', 'mmdet'), ('Classifiers', 'mmpretrain')):
        rows = {name: row for name, row in results.items() if name.startswith(f'{library}::')}
        parts += [f'## {title}\n', _summary(rows, library) + '\n', _table(rows)]
    untried = [name for name in stock_names() if name not in results]
    if untried:
        parts.append('## Not tried yet\n\n' + '\n'.join(f'- `{name}`' for name in untried) + '\n')
    parts.append(OTHER_LIBRARIES)
    parts.append('## Folders of mmdet without a row\n')
    recipes = (f'- `{folder}`: models of {", ".join(rows)}, trained otherwise.' for folder, rows in RECIPES.items())
    parts.append('\n'.join(recipes))
    parts.append('\n'.join(f'- `{folder}`: {why}.' for folder, why in sorted(NOT_DETECTORS.items())) + '\n')
    parts.append('## Folders of mmpretrain without a row\n')
    parts.append('\n'.join(f'- `{folder}`: {why}.' for folder, why in sorted(NOT_CLASSIFIERS.items())) + '\n')
    return '\n'.join(parts)


def counts(rows: dict[str, dict[str, Any]], method: str) -> tuple[int, int]:
    """Returns how many of the rows work with a method, and how many there are."""
    return sum(row['methods'][method][0] == 'works' for row in rows.values()), len(rows)


def _summary(rows: dict[str, dict[str, Any]], library: str) -> str:
    several = {name: row for name, row in rows.items() if row['multi_level']}
    folders = {name.split('::')[1].split('/')[0] for name in rows}
    era, fitnets = counts(rows, 'ERA'), counts(rows, 'FitNets')
    text = f'{era[1]} configs of {len(folders)} families. FitNets works with {fitnets[0]}, ERA with TWI with {era[0]}'
    if library == 'mmdet':
        found = counts(several, 'ERA')
        text += f'; of the {found[1]} with several levels, ERA with TWI works with {found[0]} '
        text += f'({100 * found[0] // max(found[1], 1)} %)'
    return text + '.'


def _table(rows: dict[str, dict[str, Any]]) -> str:
    lines = ['| Family | Config | Features | ERA | FitNets | Remark |', '| --- | --- | --- | --- | --- | --- |']
    for name, row in sorted(rows.items()):
        folder, config = name.split('::')[1].split('/', 1)
        methods = row['methods']
        remarks = {method: remark for method, (_, remark) in methods.items() if remark}
        remark = '; '.join(dict.fromkeys(remarks.values())).replace('|', '\\|')
        era = methods['ERA'][0]
        if methods.get('ERA without TWI', ['n/a'])[0] == 'works':
            era += ', works without TWI'
        lines.append(f'| {folder} | {config} | {row["features"]} | {era} | {methods["FitNets"][0]} | {remark} |')
    return '\n'.join(lines) + '\n'
