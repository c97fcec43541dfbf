"""What a diagnosis needs to know of a distillation, measured on a copy of it."""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import copy, deepcopy
from typing import Any, Callable, Optional

import torch
from mmengine.config import Config
from torch.utils.data import Dataset

from mmrkd.adapters.names import names_in
from mmrkd.diagnosis import Facts
from mmrkd.engine.evaluation import evaluate_on
from mmrkd.engine.gradients import by_method, gradient_norms, scalar
from mmrkd.engine.metrics import main_metric
from mmrkd.engine.samples import spread
from mmrkd.models import Distiller, DistillMethod
from mmrkd.models.loss_guard import LossGuard
from mmrkd.models.step import Step
from mmrkd.models.variants import TeacherVariant

IMAGES = {'classification': 256}
"""How many images of each set a model is evaluated on; an image gives a classifier nothing but right or wrong."""
IMAGES_OF_OTHERS = 64


def isolated_copy(distiller: Distiller) -> Distiller:
    """Returns a copy that shares nothing but the teachers, which do not change.

    What a runner put in front of the methods of its class (a compiled ``forward``) would still run the original.
    """
    own = deepcopy(distiller)
    for name in [n for n, value in vars(own).items() if callable(value) and callable(getattr(type(own), n, None))]:
        del vars(own)[name]
    return own


def measure_step(
    distiller: Distiller,
    batch: dict,
    context: Callable[[Any], AbstractContextManager] = nullcontext,
    scale: float = 1.0,
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Measures one training step.

    It costs a forward pass and one backward pass for each method and for the task, and the memory of a second student
    with its gradients; another forward pass where a method declares measurements.

    Args:
        distiller: As it is before the step; not changed.
        batch: What a dataloader gives; not changed.
        context: Gives the context that a model is trained in (mixed precision).
        scale: Factor on the losses, without which half precision loses small gradients. Defaults to 1.

    Returns:
        Name of a method that acts in this step -> its share of the gradient on the student (the norm for its terms
        divided by the sum of the norms of all methods and the task), and what methods measured themselves
        (:meth:`DistillMethod.measurements`). No shares if no gradient is finite and above 0.
    """
    own = isolated_copy(distiller)
    own.guard = LossGuard('ignore')
    data = own.data_preprocessor(deepcopy(batch), True)
    with torch.enable_grad(), context(own):
        terms = {k: scalar(v) * scale for k, v in own.loss(**data).items() if 'loss' in k}
        numbers = _measurements(own, **data)
    groups = by_method(terms, [name for name, m in own.methods.items() if m.active and m.factor])
    distilled = {id(value) for values in groups.values() for value in values}
    groups[''] = [value for value in terms.values() if id(value) not in distilled]
    norms = gradient_norms(groups, [p for p in own.student.parameters() if p.requires_grad])
    total = sum(norms.values())
    if not (math.isfinite(total) and total > 0):
        return {}, numbers
    return {name: norm / total for name, norm in norms.items() if name}, numbers


@torch.no_grad()
def _measurements(
    own: Distiller, inputs: Any, data_samples: Any = None, views: Any = ()
) -> dict[str, dict[str, float]]:
    active = [m for _, m in sorted(own.methods.items()) if m.active and m.factor and _measures(m)]
    if not active:
        return {}
    with Step(own.adapter, active, inputs, data_samples, views, own.view_names) as step:
        found = {m.name: m.measurements(step.student_view(m), step.teacher_view(m), data_samples) for m in active}
    return {name: {k: v for k, v in values.items() if math.isfinite(v)} for name, values in found.items()}


def _measures(method: DistillMethod) -> bool:
    return type(method).measurements is not DistillMethod.measurements


def measure_metrics(
    distiller: Distiller, datasets: dict[str, Dataset], cfg: Config, facts: Facts, images: Optional[int] = None
) -> None:
    """Evaluates the student and the teachers that it listened to on a few images of validation and training.

    Training images are seen as those of the validation are: through its pipeline, without augmentation.

    Args:
        distiller: A copy; it is left in evaluation mode.
        datasets: ``'val'`` and ``'train'``.
        cfg: Config of the run.
        facts: Receives the metrics in percent, and why one is missing.
        images: How many of each; ``None`` for 256 if they are to be classified, else 64.
    """
    facts.task = distiller.adapter.task
    facts.metric = facts.metric or main_metric(cfg, distiller.adapter)
    count = images or IMAGES.get(facts.task, IMAGES_OF_OTHERS)
    scores: dict[str, float] = {}
    val, indices = datasets['val'], spread(len(datasets['val']), count)
    try:
        for name in ('student', *_teachers(distiller, val, facts)):
            scores[name] = _score(distiller, name, val, indices, cfg, facts.metric)
    finally:
        facts.val_images = len(indices) if scores else None
        facts.student_val = scores.pop('student', None)
        best = max(scores, key=scores.get, default=None)
        facts.teacher_val = scores.get(best)
    seen, path = as_validated(datasets['train'], val)
    indices = spread(len(seen), count)
    facts.student_train = _score(distiller, 'student', seen, indices, cfg, facts.metric, path)
    facts.train_images = len(indices)
    if best is not None:
        facts.teacher_train = _score(distiller, best, seen, indices, cfg, facts.metric, path)


def _score(
    distiller: Distiller,
    variant: str,
    dataset: Dataset,
    indices: list[int],
    cfg: Config,
    metric: str,
    ann_file: Optional[str] = None,
) -> float:
    """Returns a metric in percent."""
    scores, restricted = evaluate_on(distiller, variant, dataset, indices, cfg, ann_file)
    if not restricted:
        raise ValueError('the metric reads the annotations of all images and cannot be told that there are but a few')
    value = float(scores.get(metric, next(iter(scores.values())))) if scores else 0.0
    if not math.isfinite(value) or value < 0:
        raise ValueError(f'{metric} of the {variant} is {value} on {len(indices)} images')
    return value * distiller.adapter.metric_scale


def _teachers(distiller: Distiller, dataset: Dataset, facts: Facts) -> Iterator[str]:
    """Names the teachers that some method listened to and whose predictions mean the same as the student's."""
    heard = {method.teacher for method in distiller.methods.values() if method.needs_teacher}
    names = names_in(getattr(dataset, 'metainfo', None) or {})
    for variant in distiller.variants.values():
        if not isinstance(variant, TeacherVariant):
            continue
        teacher = variant.pair.teacher
        if not any(distiller.pairs[name] is variant.pair for name in heard if name is not None):
            continue
        other = teacher.classes is not None and names is not None and tuple(teacher.classes) != tuple(names)
        if other or teacher.adapter.num_classes != distiller.adapter.num_classes:
            facts.unmeasured[f'metric of the {variant.name}'] = 'it was trained for other classes than the data has'
        else:
            yield variant.name


def as_validated(train: Dataset, val: Dataset) -> tuple[Dataset, Optional[str]]:
    """Returns the images of a training set as the validation would see them, and the file that annotates them.

    Wrappers are opened; of several sets the first one is taken.
    """
    source, judge = _innermost(train), _innermost(val)
    if hasattr(source, 'pipeline') and hasattr(judge, 'pipeline'):
        source = copy(source)
        source.pipeline, source.test_mode = judge.pipeline, True
    return source, getattr(source, 'ann_file', None) or None


def _innermost(dataset: Dataset) -> Dataset:
    while not hasattr(dataset, 'indices'):  # torch's Subset, which has left some out
        parts = [dataset.dataset] if hasattr(dataset, 'dataset') else getattr(dataset, 'datasets', ())
        if not parts:
            break
        dataset = parts[0]
    return dataset
