"""One training step and one small evaluation, on a copy of the distiller."""

import math
import tempfile
import time
from collections.abc import Sequence
from typing import Any, Optional

import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from torch import Tensor
from torch.utils.data import Dataset

from mmrkd.doctor.report import Report
from mmrkd.doctor.samples import restricted_evaluator, small_loader, spread
from mmrkd.doctor.shares import propose_weights
from mmrkd.engine.metrics import found_metric
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
    with report.expecting('step-failed'):
        _enter_first_phase(distiller, report)
        distiller.guard = LossGuard('ignore')  # a term that is not finite has a fault of its own
        data = distiller.data_preprocessor(batch, True)
        kept: dict[int, int] = {}
        with torch.autograd.graph.saved_tensors_hooks(lambda t: _count(t, kept), lambda t: t):
            terms = {k: _scalar(v) for k, v in distiller(**data, mode='loss').items() if 'loss' in k}
        parameters = [p for p in distiller.student.parameters() if p.requires_grad]
        norms = _gradient_norms(terms, parameters, list(distiller.methods), thorough)
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


def _gradient_norms(
    terms: dict[str, Tensor], parameters: list[Tensor], methods: Sequence[str], thorough: bool
) -> dict[str, float]:
    """Norm of the gradient on the student for each term, or only for the sum of the terms of each method."""
    groups = {name: [value] for name, value in terms.items()}
    if not thorough:
        groups = {m: [v for k, v in terms.items() if k.startswith(f'{m}.')] for m in methods}
    norms = {}
    for name, values in groups.items():
        total = sum(values, torch.zeros(()).to(parameters[0]) if parameters else torch.zeros(()))
        if not total.requires_grad or not parameters:
            norms[name] = 0.0
            continue
        grads = torch.autograd.grad(total, parameters, retain_graph=True, allow_unused=True)
        norms[name] = math.sqrt(sum(float(g.float().square().sum()) for g in grads if g is not None))
    return norms


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


def _estimate(distiller: Distiller, data: dict, kept: dict[int, int], report: Report) -> None:
    for method in distiller.methods.values():
        if method.balance is not None:
            method.balance.eval()  # it measures in the first steps alone
    start = time.perf_counter()
    sum(_scalar(v) for k, v in distiller(**data, mode='loss').items() if 'loss' in k).backward()
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
        f'{sizes[1] * 2:.0f}, kept for the backward pass {sizes[2]:.0f})'
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
        if isinstance(variant, TeacherVariant):
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
    with report.expecting('evaluation-failed'), tempfile.TemporaryDirectory() as folder:
        indices = spread(len(dataset), images or (64 if distiller.adapter.task == 'classification' else 16))
        metrics, restricted = restricted_evaluator(cfg.val_evaluator, dataset, indices, folder)
        evaluator = Evaluator(metrics)
        evaluator.dataset_meta = dataset.metainfo
        distiller.eval()
        distiller.set_variant(variant.name)
        for batch in small_loader(dataset, indices, cfg.val_dataloader):
            evaluator.process(data_samples=distiller.val_step(batch), data_batch=batch)
        scores = evaluator.evaluate(len(indices))
        if not scores:  # what mmdet's COCO metric gives for no detections at all
            return report.fault('teacher-untrained', f'the {variant.name} finds nothing on {len(indices)} images')
        name = found_metric(cfg, adapter, scores)
        value = float(scores[name])
        report.say(f'the {variant.name} on {len(indices)} validation images: {name} {value:.4g}')
        lowest = lowest_metric(name, adapter.num_classes, len(indices)) if restricted else None
        if value < 0:
            report.say('  (negative: these images have no objects of its classes)')
        elif lowest is not None and not value >= lowest:
            report.fault(
                'teacher-untrained', f'{name} is {value:.4g} on {len(indices)} images, expected more than {lowest:.4g}'
            )


def lowest_metric(name: str, classes: Optional[int], images: int) -> Optional[float]:
    """Returns what a teacher must reach to be told from one that knows nothing; ``None`` if the metric is unknown.

    Detection: an average precision of 0.01. Classification, in percent: chance, 1/K, plus two standard errors.
    Segmentation, in percent: 1/K, the most that one class everywhere can reach.
    """
    if name.endswith('top1') and classes:
        return 100 * (1 / classes + 2 * math.sqrt((1 - 1 / classes) / classes / images))
    if name.endswith('mIoU') and classes:
        return 100 / classes
    return LOWEST_AP if name.endswith(('mAP', 'AP')) else None


def _scalar(value: Any) -> Tensor:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return torch.stack([part.float().mean() for part in parts]).sum()


def _count(tensor: Tensor, kept: dict[int, int]) -> Tensor:
    if not isinstance(tensor, torch.nn.Parameter):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
