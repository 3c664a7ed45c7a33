"""How large and costly a network is: the paper's tables in two conventions, and any trainer on any plans.

:mod:`.paper_report` and :mod:`.trainer_report` are the two fronts. Below them, :mod:`.counting` counts everything and
:mod:`.paper_convention` counts as the paper did; neither front imports what only the other one needs.
"""
