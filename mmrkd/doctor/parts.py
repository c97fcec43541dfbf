"""What parts of a distillation are called in a report."""


def role_of(teacher: str) -> str:
    """Returns what to call a teacher of a name: the only one has no need of it."""
    return 'teacher' if teacher == 'default' else f'teacher {teacher}'
