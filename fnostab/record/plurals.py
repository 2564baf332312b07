"""Counts of things, in the singular or the plural."""


def counted(n: int, one: str, many: str = "") -> str:
    """Write a count: 1 trial, 2,000 trials; ``many`` is the plural where it is not ``one`` with an s."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
