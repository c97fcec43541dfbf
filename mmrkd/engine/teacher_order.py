"""In which order several teachers should teach one student (MTPD, arXiv 2308.09105)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor

from mmrkd.checkpoint import load_checkpoint_file, load_strictly
from mmrkd.engine.evaluation import evaluate_on
from mmrkd.engine.isolation import quiet
from mmrkd.engine.metrics import found_metric
from mmrkd.engine.prepare import check_data
from mmrkd.engine.samples import small_loader, spread
from mmrkd.models import Distiller
from mmrkd.models.losses import AffineSums
from mmrkd.models.variants import TeacherVariant
from mmrkd.structures import match_levels, resized

STUDENT = 'student'
Costs = dict[tuple[str, str], float]


class TeacherOrder(NamedTuple):
    """Teachers in their order, and a sentence about each.

    Attributes:
        names: The first to teach comes first.
        reasons: In the order in which they were chosen: the last teacher comes first. Those that are left out, too.
    """

    names: list[str]
    reasons: list[str]


def order_teachers(costs: Mapping[tuple[str, str], float], scores: Mapping[str, float]) -> TeacherOrder:
    """Orders teachers as MTPD does: small steps towards the best one.

    The last is the most accurate one. Going backwards, the teacher before it is the one whose features it takes least
    to adapt to it, of those that are better than the student and nearer to him than the one that comes behind.

    Args:
        costs: ``(from, to)`` -> adaptation cost, see :class:`mmrkd.models.losses.AffineSums`; the student is called
            ``'student'``.
        scores: Name -> metric, of the student, too; more is better.

    Raises:
        ValueError: There is no teacher, or a number is missing.
    """
    teachers = [name for name in scores if name != STUDENT]
    missing = [p for b in teachers for p in ((a, b) for a in scores if a != b) if p not in costs]
    if not teachers or STUDENT not in scores or missing:
        raise ValueError(
            f'expected scores of {STUDENT!r} and of teachers, and a cost for each pair; found scores of '
            f'{list(scores)}, without the costs {missing}'
        )
    order = [max(teachers, key=lambda name: (scores[name], -costs[STUDENT, name]))]
    reasons = [f'{order[0]} is the last: it is the most accurate ({scores[order[0]]:.4g})']
    while True:
        follower = order[0]
        left = [name for name in teachers if name not in order]
        better = [name for name in left if scores[name] > scores[STUDENT]]
        nearer = [name for name in better if costs[STUDENT, name] < costs[STUDENT, follower]]
        if not nearer:
            break
        chosen = min(nearer, key=lambda name: costs[name, follower])
        reasons.append(
            f'{chosen} comes before {follower}: of {nearer}, nearer to the student than {follower} '
            f'({costs[STUDENT, follower]:.4g}), it takes least to adapt to it ({costs[chosen, follower]:.4g})'
        )
        order.insert(0, chosen)
    return TeacherOrder(order, reasons + [_left_out(name, order[0], costs, scores) for name in left])


def _left_out(name: str, first: str, costs: Mapping[tuple[str, str], float], scores: Mapping[str, float]) -> str:
    if scores[name] <= scores[STUDENT]:
        return f'{name} is left out: it is no better than the student ({scores[name]:.4g} <= {scores[STUDENT]:.4g})'
    own, others = costs[STUDENT, name], costs[STUDENT, first]
    return f'{name} is left out: it is no nearer to the student ({own:.4g}) than {first}, the first ({others:.4g})'


@torch.no_grad()
def measure_costs(distiller: Distiller, batches: Iterable[dict], resize: Optional[str] = None) -> Costs:
    """Measures the adaptation costs of all pairs of models, in one pass over the images.

    Each model sees its own view of the same pixels. Levels are matched by stride; their costs are averaged.

    Args:
        distiller: Student and teachers. Put into evaluation mode.
        batches: What a dataloader gives. Held-out images.
        resize: As :class:`mmrkd.models.Distiller` takes it.

    Returns:
        ``(from, to)`` -> cost, to each teacher from everybody else; the student is called ``'student'``.
    """
    distiller.eval()
    adapters = {STUDENT: distiller.adapter, **{name: t.adapter for name, t in distiller.teachers.items()}}
    levels = {name: adapter.levels(adapter.dry_feats) for name, adapter in adapters.items()}
    matches = {
        (a, b): match_levels(levels[a], levels[b], resize).pairs for b in distiller.teachers for a in adapters if a != b
    }
    sums = {pair: [AffineSums() for _ in places] for pair, places in matches.items()}
    own_pixels = {name for name, t in distiller.teachers.items() if t.input_size is not None}
    for batch in batches:
        data = distiller.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        feats = {STUDENT: distiller.adapter.features(distiller.adapter.extract(inputs))}
        for name in distiller.teachers:
            done = distiller.pairs[name].teacher_pass(inputs, samples)
            feats[name] = adapters[name].features(done.feats)
        for (a, b), places in matches.items():
            for own, (i, j) in zip(sums[a, b], places):
                alike = levels[a][i].stride == levels[b][j].stride and not own_pixels & {a, b}
                own.add(*_same_positions(feats[a][i], feats[b][j], alike, resize))
    return {pair: sum(s.cost() for s in own) / len(own) for pair, own in sums.items()}


def _same_positions(source: Tensor, target: Tensor, alike: bool, resize: Optional[str]) -> tuple[Tensor, Tensor]:
    """Cuts off what only the padding of one of them added, or interpolates the target."""
    if source.dim() == 2 or source.shape[2:] == target.shape[2:]:
        return source, target
    if alike:
        height, width = (min(f.shape[dim] for f in (source, target)) for dim in (2, 3))
        return source[..., :height, :width], target[..., :height, :width]
    return source, resized(target, source, resize)


def measure_scores(distiller: Distiller, dataset: Any, indices: Sequence[int], cfg: Config) -> dict[str, float]:
    """Returns the main metric of the student and of each teacher on some images.

    Args:
        distiller: Student and teachers. Left in evaluation mode.
        dataset: Held-out images, as the validation gives them.
        indices: Which of them.
        cfg: Config of a run: its ``val_evaluator`` counts.
    """
    names = {STUDENT: STUDENT}
    for variant in distiller.variants.values():
        if isinstance(variant, TeacherVariant):
            names.update({n: variant.name for n, t in distiller.teachers.items() if t is variant.pair.teacher})
    scores = {}
    for name, variant in names.items():
        found, _ = evaluate_on(distiller, variant, dataset, indices, cfg)
        scores[name] = float(found[found_metric(cfg, distiller.adapter, found)]) if found else 0.0
    return scores


def find_order(
    cfg: Config,
    ckpt: str,
    teachers: Mapping[str, Mapping[str, Any]],
    images: int = 64,
    scores: Optional[Mapping[str, float]] = None,
    resize: Optional[str] = None,
    at: str = 'backbone',
) -> str:
    """Measures costs and metrics of teachers on validation images, and orders them.

    Args:
        cfg: Plain config of the student.
        ckpt: Its checkpoint: what it is without a teacher.
        teachers: Name -> ``dict(cfg=..., ckpt=...)``.
        images: Number of images, spread over the validation set.
        scores: Metrics that are known already, of the whole validation set; the others are measured on these images.
        resize: See :class:`mmrkd.models.Distiller`.
        at: See there.

    Returns:
        A text: the costs, the metrics, the order and why.

    Raises:
        FileNotFoundError: The validation set or a checkpoint is not there.
        ValueError: Models do not fit, or a checkpoint does not.
    """
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    check_data(cfg, ('val_dataloader',))
    preprocessor = {} if 'data_preprocessor' in cfg.model else dict(data_preprocessor=cfg.get('data_preprocessor'))
    with quiet():
        distiller = Distiller(cfg.model, teachers=teachers, resize=resize, at=at, **preprocessor)
        load_strictly(distiller.student, load_checkpoint_file(ckpt)['state_dict'], f'student checkpoint {ckpt!r}')
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
        indices = spread(len(dataset), images)
        costs = measure_costs(distiller, small_loader(dataset, indices, cfg.val_dataloader), resize)
        known = dict(scores or {})
        if not {STUDENT, *teachers} <= known.keys():
            known = {**measure_scores(distiller, dataset, indices, cfg), **known}
    return described(costs, known, order_teachers(costs, known))


def described(costs: Mapping[tuple[str, str], float], scores: Mapping[str, float], order: TeacherOrder) -> str:
    """Returns costs, metrics, order and reasons as a text."""
    width = max(len(name) for name in scores)
    lines = ['adaptation cost (from -> to; 0: an affine map of the features is enough, 1: none helps)']
    lines += [f'  {a:>{width}} -> {b:<{width}}  {cost:.4f}' for (a, b), cost in costs.items()]
    lines += ['metric', *(f'  {name:>{width}}  {score:.4g}' for name, score in scores.items())]
    lines += ['why', *(f'  {reason}' for reason in order.reasons)]
    return '\n'.join([*lines, f'order: {", ".join(order.names)}'])
