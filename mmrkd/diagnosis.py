"""Why a distillation did not help: a judgement of what was measured in a run, in plain words.

:class:`Facts` are numbers, and :func:`diagnose` is a pure function of them, so a run can be judged again at any time,
from its ``facts.json`` or from wherever its facts were kept: ``diagnose(Facts(**json.loads(text)))``.
:class:`mmrkd.engine.hooks.DiagnosisHook` measures them.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import NamedTuple, Optional

FACTS_FILE = 'facts.json'
"""Where a run leaves its facts, in its work dir."""

LEAST_LEAD = 1.0
"""Points by which a teacher must be ahead: on some hundred images less is noise, and little to learn in any case."""
FAR_ABOVE_VAL = 15.0
"""Points between training images and val. On 256 images of each a top-1 accuracy of 80 % has a standard error of 3.5
points for the difference: this is four of them, and more than images that are merely familiar give."""
CEILINGS = {'classification': 98.0, 'detection': 90.0}
"""What a student reaches on training images that it fits. An AP averaged over IoUs up to 0.95 does not come to 100."""
LEAST_SHARE, MOST_SHARE = 0.01, 0.6
"""Of the gradient. Below the first the student would hardly be another one without the method; above the second the
ground truth has the smaller voice, though it is what is judged."""
LEAST_EXPLAINED = 0.1
"""Of the variance of the residual. Branches start from 0, and a partial sum that is corrected by less than a tenth of
what it lacks is the plain hint."""
BEHIND_ITS_VAL = 5.0
"""Points by which a teacher may be worse on training images than on val: who learnt from them is better there."""
FLOORS = {'classification': 50.0, 'detection': 10.0}
"""What a teacher reaches on labels that it agrees with: a classifier that contradicts half of them teaches otherwise
than they do, and a detector with an AP of a tenth of the scale finds almost nothing of what they mark."""
LEAST_EVALUATIONS = 5
"""Fewer have no last fifth."""
LEAST_RISE = 1.0
"""Points that the best of the last fifth of the evaluations is above the best before: more was to come."""
MOST_RATE_LEFT = 0.2
"""Of the highest learning rate, at the end. A cosine of five epochs ends with a tenth, a drop by 10 with a tenth."""


class Cause(NamedTuple):
    """What can keep a distillation from helping, and what to try."""

    meaning: str
    advice: str


CAUSES: dict[str, Cause] = {
    'teacher-no-better': Cause(
        'The teacher is no better on val than the student became.',
        'Take a teacher that is bigger or was trained longer. If the student caught up, distillation has done what it '
        'can: only a better teacher goes on from here.',
    ),
    'student-fits-training': Cause(
        'The student already fits its training images: the labels and the teacher say the same about them.',
        'Show it images on which the two still differ: stronger augmentation, more images (for terms that need no '
        'labels, unlabelled ones), fewer epochs, or a smaller student.',
    ),
    'distillation-weak': Cause(
        "A method's share of the gradient on the student is next to nothing.",
        'Raise its weights: the share grows as they do, until it is no longer small. A tenth is a start.',
    ),
    'distillation-dominant': Cause(
        'Distillation drowns the ground truth in the gradient on the student.',
        'Divide the weights of the method that is named, or let a DistillScheduleHook fade it out.',
    ),
    'residual-unexplained': Cause(
        'The branches of MBRNet explain almost nothing of the gap between teacher and student.',
        'Raise w_res, take more branches or blocks (num_branches, num_blocks; kernel_size=3 on maps), or train longer. '
        'If it stays, compare features of other levels.',
    ),
    'teacher-disagrees': Cause(
        'Teacher and ground truth disagree on the training images, so one pulls against the other.',
        'Look at images where they differ: are the labels, the order of the classes and the preprocessing of the '
        'teacher right? If the teacher is, lower the weight of the labels; if the labels are, train the teacher on '
        'these images.',
    ),
    'not-converged': Cause(
        'The training ended before it was through: what a short schedule lacks hides what distillation gives.',
        'Train longer, with a learning rate that falls to almost 0 by the end, and compare then.',
    ),
}


@dataclass
class Facts:
    """What was measured of a run. Any of it may be missing: what was not measured gives no finding.

    Only numbers, text, lists and dictionaries, so that JSON holds it. Metrics are in percent, and more is better.

    Attributes:
        metric: Name of the metric that the run is judged by.
        task: ``'detection'``, ``'classification'``, ...: some thresholds depend on it.
        val_images: How many validation images the two metrics below were measured on.
        student_val: Of the student at the end of the training.
        teacher_val: Of the best of its teachers, on the same images.
        train_images: How many training images, without augmentation, the two metrics below were measured on.
        student_train: Of the student at the end of the training.
        teacher_train: Of the same teacher, on the same images.
        gradient_shares: Method -> a share in [0, 1] for each sample, in the order of the training: the norm of the
            gradient of its terms on the student's parameters, divided by the sum of the norms of all methods and of
            the task loss.
        residual_explained: Method -> for each sample the share of the variance of the residual that its branches
            explain; at most 1, and below 0 for what is worse than a constant.
        curve: ``[epoch or iteration, metric]`` of each validation.
        peak_rate: The highest learning rate of the training.
        final_rate: That of its last iteration.
        unmeasured: What could not be measured -> why.
    """

    metric: Optional[str] = None
    task: Optional[str] = None
    val_images: Optional[int] = None
    student_val: Optional[float] = None
    teacher_val: Optional[float] = None
    train_images: Optional[int] = None
    student_train: Optional[float] = None
    teacher_train: Optional[float] = None
    gradient_shares: dict[str, list[float]] = field(default_factory=dict)
    residual_explained: dict[str, list[float]] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    peak_rate: Optional[float] = None
    final_rate: Optional[float] = None
    unmeasured: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Returns them as the text of a JSON object, whose entries are the arguments of :class:`Facts`."""
        return json.dumps(asdict(self), indent=2)


@dataclass(frozen=True)
class Finding:
    """One cause for which there is evidence.

    Attributes:
        name: Its name in :data:`CAUSES`.
        sentence: What was measured, in words.
        numbers: The same as numbers, by name.
    """

    name: str
    sentence: str
    numbers: dict[str, float]

    @property
    def advice(self) -> str:
        """What to try."""
        return CAUSES[self.name].advice

    def __str__(self) -> str:
        return f'[{self.name}] {self.sentence}\n  try: {self.advice}'


def diagnose(facts: Facts) -> list[Finding]:
    """Returns the causes that the facts give evidence for, in the order of :data:`CAUSES`; none is good news."""
    judges = (_teacher, _fit, _weak, _dominant, _residual, _disagreement, _schedule)
    return [finding for judge in judges for finding in judge(facts)]


def describe(facts: Facts) -> str:
    """Returns findings, what they rest on, and what is missing, as Markdown."""
    findings = diagnose(facts)
    lines = [f'- {finding}' for finding in findings] or ['Of the causes that are looked for, none was found.']
    known = [f'- {line}' for line in measured(facts)]
    missing = [f'- {what}: {why}' for what, why in facts.unmeasured.items()]
    for title, part in (('Measured:', known), ('Not measured:', missing)):
        lines += ['', title, '', *part] if part else []
    return '\n'.join(['# Why did it not help?' if findings else '# Diagnosis', '', *lines])


def _teacher(facts: Facts) -> Iterator[Finding]:
    if facts.teacher_val is None or facts.student_val is None:
        return
    lead = facts.teacher_val - facts.student_val
    if lead < LEAST_LEAD:
        yield Finding(
            'teacher-no-better',
            f'on {_images(facts.val_images, "validation")} the teacher has {_name(facts)} {facts.teacher_val:.1f}, the '
            f'student {facts.student_val:.1f}: a lead of {lead:.1f} points.',
            dict(teacher_val=facts.teacher_val, student_val=facts.student_val, lead=lead),
        )


def _fit(facts: Facts) -> Iterator[Finding]:
    if facts.student_train is None:
        return
    ceiling = CEILINGS.get(facts.task, float('inf'))
    gap = 0.0 if facts.student_val is None else facts.student_train - facts.student_val
    if gap > FAR_ABOVE_VAL or facts.student_train >= ceiling:
        beside = '' if facts.student_val is None else f', and {facts.student_val:.1f} on val'
        numbers = dict(student_train=facts.student_train)
        if facts.student_val is not None:
            numbers.update(student_val=facts.student_val, gap=gap)
        yield Finding(
            'student-fits-training',
            f'on {_images(facts.train_images, "training")} the student has {_name(facts)} '
            f'{facts.student_train:.1f}{beside}.',
            numbers,
        )


def _weak(facts: Facts) -> Iterator[Finding]:
    for method, share in _typical_shares(facts).items():
        if share < LEAST_SHARE:
            yield Finding(
                'distillation-weak', f'{method} has {share:.2%} of the gradient on the student.', {method: share}
            )


def _dominant(facts: Facts) -> Iterator[Finding]:
    shares = _typical_shares(facts)
    total = sum(shares.values())
    if total > MOST_SHARE:
        largest = max(shares, key=shares.get)
        yield Finding(
            'distillation-dominant',
            f'distillation has {total:.0%} of the gradient on the student, {largest} alone {shares[largest]:.0%}.',
            dict(shares, total=total),
        )


def _residual(facts: Facts) -> Iterator[Finding]:
    for method, samples in facts.residual_explained.items():
        explained = _late(samples)
        if explained is not None and explained < LEAST_EXPLAINED:
            yield Finding(
                'residual-unexplained',
                f'the branches of {method} explain {max(explained, 0):.1%} of the variance of the residual.',
                {method: explained},
            )


def _disagreement(facts: Facts) -> Iterator[Finding]:
    if facts.teacher_train is None:
        return
    floor = FLOORS.get(facts.task, float('-inf'))
    behind = 0.0 if facts.teacher_val is None else facts.teacher_val - facts.teacher_train
    if facts.teacher_train < floor or behind > BEHIND_ITS_VAL:
        beside = '' if facts.teacher_val is None else f', and {facts.teacher_val:.1f} on val'
        numbers = dict(teacher_train=facts.teacher_train)
        if facts.teacher_val is not None:
            numbers.update(teacher_val=facts.teacher_val, behind=behind)
        yield Finding(
            'teacher-disagrees',
            f'on {_images(facts.train_images, "training")} the teacher has {_name(facts)} '
            f'{facts.teacher_train:.1f}{beside}.',
            numbers,
        )


def _schedule(facts: Facts) -> Iterator[Finding]:
    sentences, numbers = [], {}
    rise = _late_rise(facts)
    if rise is not None and rise > LEAST_RISE:
        sentences.append(f'{_name(facts)} on val rose by {rise:.1f} points in the last fifth of the evaluations')
        numbers['rise'] = rise
    if facts.peak_rate and facts.final_rate is not None:
        left = facts.final_rate / facts.peak_rate
        if left > MOST_RATE_LEFT:
            sentences.append(f'the learning rate was still {left:.0%} of its highest at the end')
            numbers['rate_left'] = left
    if sentences:
        yield Finding('not-converged', f'{", and ".join(sentences)}.', numbers)


def _typical_shares(facts: Facts) -> dict[str, float]:
    """The median: a single batch may be odd, and the first ones of a run are."""
    return {method: median(samples) for method, samples in facts.gradient_shares.items() if samples}


def _late(samples: list[float]) -> Optional[float]:
    """The median of the later half: what counts is what was reached."""
    return median(samples[len(samples) // 2 :]) if samples else None


def _late_rise(facts: Facts) -> Optional[float]:
    values = [value for _, value in facts.curve]
    if len(values) < LEAST_EVALUATIONS:
        return None
    last = len(values) // 5
    return max(values[-last:]) - max(values[:-last])


def _name(facts: Facts) -> str:
    return facts.metric or 'a metric of'


def _images(count: Optional[int], kind: str) -> str:
    return f'{kind} images' if count is None else f'{count} {kind} images'


def measured(facts: Facts) -> Iterator[str]:
    """Yields a line for each thing that is known, ``what: how much``."""
    for kind, student, teacher, count in (
        ('validation', facts.student_val, facts.teacher_val, facts.val_images),
        ('training', facts.student_train, facts.teacher_train, facts.train_images),
    ):
        parts = [f'{who} {v:.1f}' for who, v in (('student', student), ('teacher', teacher)) if v is not None]
        if parts:
            yield f'{facts.metric or "metric"} on {_images(count, kind)}: {", ".join(parts)}'
    for method, share in _typical_shares(facts).items():
        yield f'{method}: {share:.1%} of the gradient on the student (median of {len(facts.gradient_shares[method])})'
    for method, samples in facts.residual_explained.items():
        if samples:
            yield f'{method}: {_late(samples):.1%} of the residual explained'
    if facts.curve:
        last, best = facts.curve[-1][1], max(value for _, value in facts.curve)
        yield f'{facts.metric or "metric"}, last of {len(facts.curve)} validations: {last:.1f}, best {best:.1f}'
    if facts.peak_rate and facts.final_rate is not None:
        yield f'learning rate at the end: {facts.final_rate / facts.peak_rate:.1%} of the highest'


def table() -> str:
    """Returns all causes as a Markdown table, for ``docs/diagnosis.md``."""
    rows = [f'| `{name}` | {cause.meaning} | {cause.advice} |' for name, cause in CAUSES.items()]
    return '\n'.join(['| name | what it is | what to try |', '|---|---|---|', *rows])
