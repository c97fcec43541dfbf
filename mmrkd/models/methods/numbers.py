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


def _listed(values: dict[str, float]) -> str:
    return ', '.join(f'{name}={value}' for name, value in values.items())
