"""What the paper claims about the size of its network compared with others, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


class ClaimKind(Enum):
    """What a claim's number means: the rival divided by ours, ours as a share of the rival, or the share saved."""

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
        about_parameters: Whether it is about parameters; False: about computation.
        kind: What the number is.
    """

    where: str
    words: str
    printed: str
    rival: str
    table: int
    about_parameters: bool
    kind: ClaimKind = ClaimKind.RATIO

    def value(self, rival: float, ours: float) -> float:
        """The claim's number for two amounts."""
        values = {ClaimKind.RATIO: rival / ours, ClaimKind.SHARE: ours / rival, ClaimKind.SAVED: 1 - ours / rival}
        return values[self.kind]

    def format(self, value: float) -> str:
        return f"{value:.2f}x" if self.kind is ClaimKind.RATIO else f"{value:.2%}"


CLAIMS = (
    Claim("abstract", "parameters reduced by", "116x", "nnU-Net", 2, True),
    Claim("abstract", "computation reduced by", "21x", "nnU-Net", 2, False),
    Claim("section 1", "parameters reduced by", "224x", "U-Mamba", 2, True),
    Claim("section 3", "parameters reduced by", "47.39x", "nnU-Net", 1, True),
    Claim("section 3", "computation reduced by", "15.82x", "nnU-Net", 1, False),
    # The paper says "only 1.07% fewer"; the number is the share that is left.
    Claim("section 3", "share of the parameters", "1.07%", "U-Mamba", 1, True, ClaimKind.SHARE),
    Claim("section 3", "share of the computation", "2.53%", "U-Mamba", 1, False, ClaimKind.SHARE),
    Claim("section 3", "parameters saved", "99.14%", "nnU-Net", 2, True, ClaimKind.SAVED),
    Claim("section 3", "parameters saved", "99.55%", "U-Mamba", 2, True, ClaimKind.SAVED),
)
