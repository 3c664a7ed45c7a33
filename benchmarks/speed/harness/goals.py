"""The goal of each row of the table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """A bound on a row's ratio.

    Attributes:
        least: The ratio must not be below.
        most: The ratio must not be above.
        aim: The target beyond the bound; printed, not checked.
    """

    least: float | None = None
    most: float | None = None
    aim: float | None = None

    def __post_init__(self) -> None:
        if (self.least is None) == (self.most is None):
            raise ValueError(f"a goal has one bound; given: least={self.least}, most={self.most}")

    @property
    def bound(self) -> float:
        return self.most if self.least is None else self.least

    def met_by(self, ratio: float) -> bool:
        return ratio <= self.most if self.least is None else ratio >= self.least

    def __str__(self) -> str:
        text = f"≤ {self.most:g}x" if self.least is None else f"≥ {self.least:g}x"
        return text if self.aim is None else f"{text} (aim: {self.aim:g}x)"


# By the row's name. Speed rows: the baseline's time divided by ours. All others: ours divided by the baseline's.
GOALS = {
    "scan_forward_reference_loop": Goal(least=300),
    "scan_forward_mamba_py": Goal(least=60),
    "scan_forward_exps": Goal(most=1.5),
    "scan_training_mamba_py": Goal(least=25),
    "forward_3d_64": Goal(least=3, aim=4.5),
    "forward_3d_128": Goal(least=3, aim=4.5),
    "forward_2d_512": Goal(least=2),
    "training_3d_64": Goal(least=2),
    "training_2d_512": Goal(least=1.2),
    "growth_3d": Goal(most=8.5),
    "recipe_3d_64": Goal(most=0.05),
    "recipe_2d_512": Goal(most=0.05),
    "recipe_3d_40": Goal(most=0.05),
    "recipe_2d_128": Goal(most=0.05),
    "memory_forward_3d_64": Goal(most=0.4),
    "memory_forward_3d_128": Goal(most=0.4),
    "memory_training_3d_64": Goal(most=1),
    "memory_training_2d_512": Goal(most=1),
}
