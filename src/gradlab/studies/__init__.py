"""Paper studies that check themselves: what a source claims, what we measured, and the verdict.

A study NAME is conf/experiment/NAME.yaml (what runs) and experiments/NAME/claims.yaml (what the
source says, and the test). What runs is a sweep of trainings or, with `measure` and
`hydra.mode: RUN`, one function that returns a tidy table. Either way its results become one table:

    direct.py       run a measuring function as a Hydra job
    claims.py       read and check claims.yaml
    reproduce.py    run a study, bundle its table, draw, judge, write
    results.py      the bundled tables and their manifest
    expressions.py  the language of claims; statistics.py its functions
    verdicts.py     a claim and a table to a verdict
    report.py       verdicts as text

The other files compute and draw one study each.
"""
