"""How large and how costly a network is: the paper's tables in two conventions, and any trainer on any plans.

:mod:`.paper_report` and :mod:`.trainer_report` are the two fronts. Below them, :mod:`.counting` counts truly and
:mod:`.paper_convention` as the paper did; neither front imports what the other one needs.
"""
