"""The judge: a paper's claims read, computed from a study's table, and answered with a verdict.

    study.py        read and check experiments/NAME/claims.yaml
    reproduce.py    run a study, bundle its table, draw, judge, write
    results.py      the bundled tables and their manifest
    expressions.py  the language of claims; statistics.py its functions
    verdicts.py     from a claim and a table to a verdict
    report.py       verdicts as text

It knows no paper: what each one measured is in `gradlab.studies`.
"""
