"""Judging papers' claims: each is computed from a study's table and gets a verdict.

    study.py        read and check experiments/NAME/claims.yaml
    reproduce.py    run a study, bundle its table, draw, judge, write
    results.py      the bundled tables and their manifest
    expressions.py  the language of claims; functions.py its functions by name
    statistics.py   estimates with their intervals; significance.py exact tests
    verdicts.py     from a claim and a table to a verdict
    report.py       verdicts as text; pages.py the pages that show them
    skeleton.py     the files of a new study

Nothing here knows a particular paper; those are in `gradlab.studies`.
"""
