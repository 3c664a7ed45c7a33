"""How large and how costly a network is: the paper's tables in two conventions, and any trainer on any plans."""

from .counting import TrueCount, on_meta, true_count
from .measurement import measure
from .paper_convention import PaperCount, ThopMissing, paper_count
from .paper_report import paper_report
from .paper_study import count_tables, judge_claims
from .plans import PlansError
from .trainer_report import count_trainer, trainer_report

__all__ = [
    "PaperCount",
    "PlansError",
    "ThopMissing",
    "TrueCount",
    "count_tables",
    "count_trainer",
    "judge_claims",
    "measure",
    "on_meta",
    "paper_count",
    "paper_report",
    "trainer_report",
    "true_count",
]
