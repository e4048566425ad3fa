"""Options that several commands read alike."""

from __future__ import annotations

from petground.labeling.errors import ConfigError

__all__ = ["spacing_option"]


def spacing_option(text: str) -> tuple[float, float, float]:
    """`4` or `4,4,3` -> millimetres along x, y, z. Raises ConfigError for anything else."""
    try:
        numbers = [float(word) for word in text.replace("x", ",").split(",")]
    except ValueError:
        numbers = []
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    if len(numbers) != 3 or not all(0.1 <= mm <= 50 for mm in numbers):
        raise ConfigError(f"--spacing is '{text}'", fix="millimetres, as in 4 or 4,4,3")
    return numbers[0], numbers[1], numbers[2]
