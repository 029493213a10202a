"""Paper studies, one file a paper: compute its table (`measure`) and draw it (`figure`).

A study NAME is conf/experiment/NAME.yaml (what runs) and experiments/NAME/claims.yaml (what the
source says, and the test). What runs is a sweep of trainings or, with `measure` and
`hydra.mode: RUN`, one function that returns a tidy table. `gradlab.claims` judges either table.
"""
