"""Numbers in a config that no run makes sense of."""


def require_weights(method: str, **weights: float) -> None:
    """Raises ValueError if a weight is negative; 0 turns its term off."""
    wrong = {name: value for name, value in weights.items() if not value >= 0}
    if wrong:
        raise ValueError(f'{method}: weights must be >= 0 (0 turns a term off), found {_listed(wrong)}')


def require_positive(method: str, **values: float) -> None:
    """Raises ValueError if a value, such as a temperature, is not above 0."""
    wrong = {name: value for name, value in values.items() if not value > 0}
    if wrong:
        raise ValueError(f'{method}: a number > 0 expected, found {_listed(wrong)}')


def require_share(method: str, **values: float) -> None:
    """Raises ValueError if a share, such as a probability, is not in [0, 1]."""
    wrong = {name: value for name, value in values.items() if not 0 <= value <= 1}
    if wrong:
        raise ValueError(f'{method}: a number from 0 to 1 expected, found {_listed(wrong)}')


def _listed(values: dict[str, float]) -> str:
    return ', '.join(f'{name}={value}' for name, value in values.items())
