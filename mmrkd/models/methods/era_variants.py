"""What a distiller can predict as because of ERA."""

from collections.abc import Sequence
from copy import deepcopy

from torch import Tensor, nn

from mmrkd.adapters.structure import tensors_in
from mmrkd.models.heads import TeacherHead
from mmrkd.models.pair import Pair
from mmrkd.models.variants import Variant
from mmrkd.structures import Features, LevelMatch


class IntegratedVariant(Variant):
    """Student, P, MBRNet and the teacher's head: H_t(h_N). The teacher's body is not run.

    As a plain model it is the student's backbone, with the neck of ERA behind the student's own, and the teacher's
    head; it needs mmrkd for that neck.

    Args:
        pair: Student and teacher.
        neck: P and MBRNet.
        neck_cfg: Arguments of the neck.
        teacher_head: H_t.
    """

    def __init__(self, pair: Pair, neck: nn.Module, neck_cfg: dict, teacher_head: TeacherHead) -> None:
        super().__init__('integrated')
        self.pair, self.neck, self.neck_cfg, self.teacher_head = pair, neck, neck_cfg, teacher_head

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts with the teacher's head on what MBRNet makes of the student's features."""

        def estimate(images: Tensor) -> Features:
            return self.neck(self.pair.student_feats(self.pair.student.extract(images)))

        return self.teacher_head.predict(estimate, inputs, samples)

    def model_config(self) -> dict:
        """Returns the config of the plain model.

        Raises:
            ValueError: The student has levels that the teacher does not read: a neck is given all of them. Or the
                features lie inside the decode head, and behind them the teacher's goes on.
        """
        if self.pair.student.at != 'backbone':
            raise ValueError(
                f'there is no plain config of the integrated form with features at={self.pair.student.at!r}: it is one '
                'decode head up to there, and another one behind. Evaluate it with the distillation config.'
            )
        self._require_named_necks()
        routing = self._routing()
        if not routing:
            self._require_all_levels()
        student, model = self.pair.student_cfg, deepcopy(self.pair.teacher.cfg)
        for key in ('init_cfg', 'pretrained'):
            model.pop(key, None)
        model['backbone'] = deepcopy(student['backbone'])
        model['data_preprocessor'] = deepcopy(student.get('data_preprocessor'))
        necks = student.get('neck') or []
        neck = dict(type=f'mmrkd.{type(self.neck).__name__}', **self.neck_cfg)
        before, behind = routing[:1], routing[1:]
        sequence = [*deepcopy(necks if isinstance(necks, list) else [necks]), *before, neck, *behind]
        model['neck'] = sequence if self.pair.student.takes_necks else dict(type='mmrkd.NeckSequence', necks=sequence)
        return model

    def weights(self) -> dict[str, Tensor]:
        """Returns the weights for :meth:`model_config`."""
        student, teacher = self.pair.student.model, self.pair.teacher.model.state_dict()
        neck = getattr(student, 'neck', None)
        sequence = isinstance(neck, nn.Sequential)
        count = 0 if neck is None else len(neck) if sequence else 1
        inner = 'neck.' if sequence else 'neck.0.'
        own_index = count + len(self._routing()[:1])
        own = student.state_dict()
        state = {k: v for k, v in own.items() if k.startswith('backbone.')}
        state.update({inner + k[len('neck.') :]: v for k, v in own.items() if k.startswith('neck.')})
        state.update({f'neck.{own_index}.{k}': v for k, v in self.neck.state_dict().items()})
        state.update({k: v for k, v in teacher.items() if not k.startswith(('backbone.', 'neck.'))})
        return state

    def _routing(self) -> list[dict]:
        """What chooses levels before the neck and places them behind it, where heads read only some of all levels."""
        adapters = self.pair.student, self.pair.teacher.adapter
        student, teacher = (adapter.positions(adapter.dry_feats) for adapter in adapters)
        if student is None or teacher is None:
            return []
        pairs, others = self.pair.match.pairs, sum(1 for _ in tensors_in(adapters[1].dry_feats))
        return [
            dict(type='mmrkd.SelectLevels', indices=[student[s] for s, _ in pairs]),
            dict(type='mmrkd.PlaceLevels', indices=[teacher[t] for _, t in pairs], num_levels=others),
        ]

    def _require_named_necks(self) -> None:
        models = self.pair.student.model, self.pair.teacher.model
        for model, cfg in zip(models, (self.pair.student_cfg, self.pair.teacher.cfg)):
            if getattr(model, 'neck', None) is not None and not cfg.get('neck'):
                raise ValueError(
                    f'the {type(model).__name__} has a neck that its config does not name: it is made of settings of '
                    'the head in an outdated form. Write it as `neck`, as the log of the library says.'
                )

    def _require_all_levels(self) -> None:
        match = self.pair.match
        if [s for s, _ in match.pairs] != list(range(len(match.student_levels))):
            raise ValueError(
                f'the student has {len(match.student_levels)} levels, of which the teacher reads {len(match.pairs)}: '
                'there is no plain config of the integrated form. Evaluate it with the distillation config, or let the '
                "student's neck give the levels of the teacher alone."
            )


class BlendVariant(Variant):
    """Outputs of both heads, mixed: (1 - alpha) z_s + alpha H_t(h_N), post-processed by the student's head.

    Args:
        pair: Student and teacher.
        neck: P and MBRNet.
        teacher_head: H_t.
        alpha: Share of the teacher's head, in (0, 1).
    """

    parts = ('student', 'integrated')

    def __init__(self, pair: Pair, neck: nn.Module, teacher_head: TeacherHead, alpha: float) -> None:
        super().__init__('blend')
        self.pair, self.neck, self.teacher_head, self.alpha = pair, neck, teacher_head, alpha

    def predict(self, inputs: Tensor, samples: Sequence) -> Sequence:
        """Predicts from the mixed outputs."""
        student = self.pair.student
        feats = student.extract(inputs)
        other = self.teacher_head.outputs(self.neck(self.pair.student_feats(feats)))
        return student.blend(student.head_outputs(feats), other, self.alpha, samples)


def refused_variants(pair: Pair, match: LevelMatch) -> dict[str, str]:
    """Returns which of ERA's variants a pair of models cannot have, and why.

    Args:
        pair: Student and teacher.
        match: The levels that ERA works on.
    """
    if not match.covers_teacher:
        reason = (
            "The teacher's head reads levels that the student does not have, or that ERA does not work on: "
            f'{len(match.teacher_levels)} levels, {len(match.pairs)} of them matched.'
        )
        return dict(integrated=reason, blend=reason)
    if not match.same_strides:
        reason = "The student's levels have other strides than those that the teacher's head reads."
        return dict(integrated=reason, blend=reason)
    if pair.student.blend_obstacle:
        return dict(blend=pair.student.blend_obstacle)
    if pair.layout_gap:
        return dict(blend=f'blend needs heads that line up, but they differ: {pair.layout_gap}')
    return {}
