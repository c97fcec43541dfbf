"""The state of an optimiser, kept by the names of parameters: torch keeps it by their places."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmengine.optim import OptimWrapperDict
from torch import nn
from torch.optim import Optimizer

from mmrkd.models.state_names import METHODS_PREFIX

Groups = list[list[str]]


def optimizers_of(optim_wrapper: Any) -> dict[str, Optimizer]:
    """Returns the optimisers of a run by name; a single one is called ``''``, and one that is sharded is left out."""
    wrappers = dict(optim_wrapper.items()) if isinstance(optim_wrapper, OptimWrapperDict) else {'': optim_wrapper}
    found = {name: getattr(wrapper, 'optimizer', None) for name, wrapper in wrappers.items()}
    return {name: optimizer for name, optimizer in found.items() if isinstance(optimizer, Optimizer)}


def names_in(optimizer: Optimizer, model: nn.Module) -> Groups:
    """Returns the names of the parameters in each group of an optimiser."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return [[names.get(id(p), '') for p in group['params']] for group in optimizer.param_groups]


def rearrange(
    checkpoint: dict[str, Any], saved: Mapping[str, Groups], optim_wrapper: Any, model: nn.Module, renamed: Mapping
) -> None:
    """Brings the state of each optimiser in a checkpoint, and of its schedules, into the present order of parameters.

    Nothing is touched where the names and their order are those of before: the common case, exact to the bit.
    Parameters that are new have no state yet, and as much of their learning rate as the schedule leaves to the others.

    Args:
        checkpoint: Changed in place.
        saved: Name of an optimiser -> what :func:`names_in` said when it was saved.
        optim_wrapper: Of the present run.
        model: Who its parameters belong to.
        renamed: Saved name of a method -> present name.
    """
    for key, optimizer in optimizers_of(optim_wrapper).items():
        if key not in saved:
            continue
        before = [[_renamed(name, renamed) for name in group] for group in saved[key]]
        present = names_in(optimizer, model)
        if before == present:
            continue
        known = {name for group in before for name in group}
        new = [name for group in present for name in group if name not in known]
        print_log(f'the optimiser is resumed by name; {len(new)} parameters have no state yet: {new[:4]}', 'current')
        state, schedules = checkpoint['optimizer'], checkpoint.get('param_schedulers', [])
        if key:
            state, schedules = state[key], schedules.get(key, []) if isinstance(schedules, dict) else []
        sources = _sources(before, present)
        ratios = _ratios(state['param_groups'], optimizer, sources, [known.isdisjoint(group) for group in present])
        state.update(_reordered(state, before, present, sources, ratios))
        _rearrange_schedules(schedules, len(before), sources, ratios)


def _sources(before: Groups, present: Groups) -> list[int]:
    """For each present group the saved one whose settings it takes: its first known parameter's, else a student's."""
    place = {name: index for index, group in enumerate(before) for name in group}
    students = next((i for i, group in enumerate(before) for n in group if not n.startswith(METHODS_PREFIX)), 0)
    return [next((place[name] for name in group if name in place), students) for group in present]


def _ratios(saved: Sequence[dict], optimizer: Optimizer, sources: Sequence[int], new: Sequence[bool]) -> list[float]:
    """For each present group its whole learning rate over that of its source; 1 where it is a group of before."""
    whole = [group.get('initial_lr', group['lr']) for group in optimizer.param_groups]
    base = [saved[i].get('initial_lr', saved[i]['lr']) for i in sources]
    return [own / other if fresh and other else 1.0 for own, other, fresh in zip(whole, base, new)]


def _reordered(
    state: Mapping[str, Any], before: Groups, present: Groups, sources: Sequence[int], ratios: Sequence[float]
) -> dict[str, Any]:
    by_name = {}
    for names, group in zip(before, state['param_groups']):
        by_name.update({name: state['state'][i] for name, i in zip(names, group['params']) if i in state['state']})
    groups, states, count = [], {}, 0
    for names, source, ratio in zip(present, sources, ratios):
        group = {**state['param_groups'][source], 'params': list(range(count, count + len(names)))}
        group.update({name: group[name] * ratio for name in ('lr', 'initial_lr') if name in group})
        groups.append(group)
        states.update({count + i: by_name[name] for i, name in enumerate(names) if name in by_name})
        count += len(names)
    return dict(state=states, param_groups=groups)


def _rearrange_schedules(
    schedules: Sequence[dict], groups: int, sources: Sequence[int], ratios: Sequence[float]
) -> None:
    for schedule in schedules:
        of_rate = schedule.get('param_name', 'lr') == 'lr'
        for entry in ('base_values', '_last_value'):
            values = schedule.get(entry)
            if isinstance(values, list) and len(values) >= groups:
                own = [values[i] * (ratio if of_rate else 1) for i, ratio in zip(sources, ratios)]
                schedule[entry] = own + values[groups:]  # mmengine adds one for what stands for the whole optimiser


def _renamed(name: str, methods: Mapping[str, str]) -> str:
    if not name.startswith(METHODS_PREFIX):
        return name
    method, _, rest = name[len(METHODS_PREFIX) :].partition('.')
    return f'{METHODS_PREFIX}{methods.get(method, method)}.{rest}'
