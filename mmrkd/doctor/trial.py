"""One training step and one small evaluation, on a copy of the distiller."""

import math
import time
from typing import Optional

import torch
from mmengine.config import Config
from torch import Tensor
from torch.utils.data import Dataset

from mmrkd.doctor.report import Report
from mmrkd.doctor.shares import propose_weights
from mmrkd.engine.evaluation import evaluate_on
from mmrkd.engine.gradients import by_method, gradient_norms, scalar
from mmrkd.engine.metrics import found_metric
from mmrkd.engine.samples import spread
from mmrkd.models import Distiller
from mmrkd.models.loss_guard import LossGuard
from mmrkd.models.variants import TeacherVariant

LOWEST_AP = 0.01


def try_batch(distiller: Distiller, batch: dict, report: Report, thorough: bool = True) -> None:
    """Computes the losses of one batch, with their gradients on the student.

    Args:
        distiller: A copy; its buffers change.
        batch: What a dataloader gives.
        report: Receives a table of the terms, and faults.
        thorough: Whether each term is differentiated by itself, and time and memory are measured.
    """
    distiller.train()
    with report.expecting('step-failed', MissingViews='views-missing', MixedViews='views-mixed'):
        _enter_first_phase(distiller, report)
        distiller.guard = LossGuard('ignore')  # a term that is not finite has a fault of its own
        data = distiller.data_preprocessor(batch, True)
        kept: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _count(t, kept), lambda t: t):
            terms = {k: scalar(v) for k, v in distiller(**data, mode='loss').items() if 'loss' in k}
        parameters = [p for p in distiller.student.parameters() if p.requires_grad]
        norms = gradient_norms(terms if thorough else by_method(terms, distiller.methods), parameters)
        _judge_terms(terms, norms, distiller, report)
        if thorough:
            propose_weights(distiller, data, report)
            _estimate(distiller, data, kept, report)


def _enter_first_phase(distiller: Distiller, report: Report) -> None:
    """What PhaseHook does when an epoch begins, which is later than this."""
    for name, method in distiller.methods.items():
        if method.phases:
            method.enter_phase(method.phase_of(0))
            method.hold_frozen()
            report.say(f'{name} trains in phases: this is the first, {method.phase!r}')


def _judge_terms(terms: dict[str, Tensor], norms: dict[str, float], distiller: Distiller, report: Report) -> None:
    values = {name: float(value.detach()) for name, value in terms.items()}
    total = sum(values.values())
    header = ['term', 'value', 'share', 'gradient norm on the student']
    rows = [[name, f'{value:.4g}', f'{value / total:.1%}' if total else '-'] for name, value in values.items()]
    if norms.keys() == terms.keys():
        rows = [[*row, f'{norms[row[0]]:.3g}'] for row in rows]
    report.table('losses of one batch:', header[: len(rows[0])], rows)
    broken = [f'{name} is {value}' for name, value in values.items() if not math.isfinite(value)]
    if broken:
        report.fault('loss-not-finite', ', '.join(broken))
        return
    for name, method in distiller.methods.items():
        own = [norm for key, norm in norms.items() if key.split('.')[0] == name]
        if method.active and own and not any(own) and any(p.requires_grad for p in distiller.student.parameters()):
            report.fault('no-gradient', f'{name}: the gradient of all its terms on the student is 0')


def _views_of(distiller: Distiller) -> str:
    """What several views of an image do to the time of a step."""
    several = [f'{name} sees {m.num_views} views' for name, m in distiller.methods.items() if m.num_views > 1]
    return f'; {", ".join(several)} of each image, so that a step has as many passes' * bool(several)


def _estimate(distiller: Distiller, data: dict, kept: dict[int, int], report: Report) -> None:
    for method in distiller.methods.values():
        if method.balance is not None:
            method.balance.eval()  # it measures in the first steps alone
    start = time.perf_counter()
    sum(scalar(v) for k, v in distiller(**data, mode='loss').items() if 'loss' in k).backward()
    if data['inputs'].is_cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    frozen = [value for teacher in distiller.teachers.values() for value in teacher.model.state_dict().values()]
    weights = [*distiller.parameters(), *distiller.buffers(), *frozen]
    trained = sum(_bytes(p) for p in distiller.parameters() if p.requires_grad)
    sizes = sum(map(_bytes, weights)) / 1e6, trained / 1e6, sum(kept.values()) / 1e6
    report.say(
        f'one step with {len(data["inputs"])} images {tuple(data["inputs"].shape[-2:])}: {seconds:.2f} s; memory about '
        f'{sum(sizes) + sizes[1] * 2:.0f} MB (weights {sizes[0]:.0f}, gradients {sizes[1]:.0f}, optimiser up to '
        f'{sizes[1] * 2:.0f}, kept for the backward pass {sizes[2]:.0f}){_views_of(distiller)}'
    )


def score_teachers(distiller: Distiller, dataset: Dataset, cfg: Config, images: Optional[int], report: Report) -> None:
    """Evaluates each teacher on a few validation images, through the run's own pipeline and metric.

    Args:
        distiller: A copy.
        dataset: Validation set.
        cfg: Config of the run.
        images: How many; ``None`` for 16, or 64 if they are to be classified, since each gives only right or wrong.
        report: Receives the metric, and a fault if it is near zero.
    """
    if not cfg.get('val_evaluator') or any(f.message.startswith('val_evaluator') for f in report.faults):
        return
    for variant in distiller.variants.values():
        if isinstance(variant, TeacherVariant) and variant.pair.teacher.num_classes != distiller.adapter.num_classes:
            report.say(f'the {variant.name} tells other classes apart than the data has: it was not evaluated')
        elif isinstance(variant, TeacherVariant):
            _score_teacher(distiller, variant, dataset, cfg, images, report)


def _score_teacher(
    distiller: Distiller,
    variant: TeacherVariant,
    dataset: Dataset,
    cfg: Config,
    images: Optional[int],
    report: Report,
) -> None:
    adapter = variant.pair.teacher.adapter
    with report.expecting('evaluation-failed'):
        indices = spread(len(dataset), images or (64 if distiller.adapter.task == 'classification' else 16))
        scores, restricted = evaluate_on(distiller, variant.name, dataset, indices, cfg)
        if not scores:  # what mmdet's COCO metric gives for no detections at all
            return report.fault('teacher-untrained', f'the {variant.name} finds nothing on {len(indices)} images')
        name = found_metric(cfg, adapter, scores)
        value = float(scores[name])
        report.say(f'the {variant.name} on {len(indices)} validation images: {name} {value:.4g}')
        lowest = lowest_metric(name, variant.pair.teacher.num_classes, len(indices)) if restricted else None
        if value < 0:
            report.say('  (negative: these images have no objects of its classes)')
        elif lowest is not None and not value >= lowest:
            report.fault(
                'teacher-untrained', f'{name} is {value:.4g} on {len(indices)} images, expected more than {lowest:.4g}'
            )


def lowest_metric(name: str, classes: Optional[int], images: int) -> Optional[float]:
    """Returns what a teacher must reach to be told from one that knows nothing; ``None`` if the metric is unknown.

    Detection: an average precision of 0.01. Classification, in percent: chance, 1/K, plus two standard errors.
    Segmentation, in percent: 1/K, the most that one class everywhere can reach. Pose: a PCK or an average precision of
    0.01.
    """
    if name.endswith('top1') and classes:
        return 100 * (1 / classes + 2 * math.sqrt((1 - 1 / classes) / classes / images))
    if name.endswith('mIoU') and classes:
        return 100 / classes
    return LOWEST_AP if name.endswith(('mAP', 'AP', 'PCK')) else None


def _count(tensor: Tensor, kept: dict[int, int]) -> Tensor:
    if not isinstance(tensor, torch.nn.Parameter):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
