"""What the paper claims about its network's size compared with others, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class Form(Enum):
    """How a claim compares: how many times as much the rival has, our share of the rival's, or what is saved of it."""

    RATIO = auto()
    SHARE = auto()
    SAVED = auto()


@dataclass(frozen=True)
class Claim:
    """One comparison.

    Attributes:
        where: Section of the paper.
        words: What is claimed, briefly.
        printed: The number as the paper prints it.
        rival: A model of the table.
        table: Number of the table whose networks are compared.
        about_parameters: False: about computation.
        form: How the number compares.
    """

    where: str
    words: str
    printed: str
    rival: str
    table: int
    about_parameters: bool
    form: Form = Form.RATIO

    def value(self, rival: float, ours: float) -> float:
        """The claim's number for two amounts."""
        return {Form.RATIO: rival / ours, Form.SHARE: ours / rival, Form.SAVED: 1 - ours / rival}[self.form]

    def format(self, value: float) -> str:
        return f"{value:.2f}x" if self.form is Form.RATIO else f"{value:.2%}"


CLAIMS = (
    Claim("abstract", "parameters reduced by", "116x", "nnU-Net", 2, True),
    Claim("abstract", "computation reduced by", "21x", "nnU-Net", 2, False),
    Claim("section 1", "parameters reduced by", "224x", "U-Mamba", 2, True),
    Claim("section 3", "parameters reduced by", "47.39x", "nnU-Net", 1, True),
    Claim("section 3", "computation reduced by", "15.82x", "nnU-Net", 1, False),
    # The paper says "only 1.07% fewer"; the number is the share that is left.
    Claim("section 3", "share of the parameters", "1.07%", "U-Mamba", 1, True, Form.SHARE),
    Claim("section 3", "share of the computation", "2.53%", "U-Mamba", 1, False, Form.SHARE),
    Claim("section 3", "parameters saved", "99.14%", "nnU-Net", 2, True, Form.SAVED),
    Claim("section 3", "parameters saved", "99.55%", "U-Mamba", 2, True, Form.SAVED),
)
