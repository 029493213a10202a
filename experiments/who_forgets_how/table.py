"""The study's table, a row a network and task, drawn from its bundled results.

python experiments/who_forgets_how/table.py          write networks.csv
"""

from pathlib import Path

from gradlab.claims.results import load_results
from gradlab.claims.study import load_study
from gradlab.studies.who_forgets_how import summary

HERE = Path(__file__).parent

if __name__ == "__main__":
    table, _ = load_results(load_study(HERE.parents[1], HERE.name), "small", HERE)
    summary(table).to_csv(HERE / "networks.csv", index=False, float_format="%.4g")
