"""Paper studies, one file a paper: compute its table (`measure`) and draw it (`figure`).

A study NAME consists of conf/experiment/NAME.yaml, which says what runs, and
experiments/NAME/claims.yaml, with the source's claims and their tests. It runs either a sweep of
trainings or, with `measure` and `hydra.mode: RUN`, one function that returns a tidy table.
`gradlab.claims` judges both kinds of table.

Shared by several studies: drawing.py, networks.py, success_rates.py, and swept.py, the figure of
those that name their columns in claims.yaml and need no code. Parts of one study:
one_unit.py (error_surface), identities.py (ground_truths).
"""
