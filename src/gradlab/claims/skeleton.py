"""The skeleton of a new study: what runs, what its source claims, and a page with its headings."""

import re
from functools import partial
from pathlib import Path
from string import Template

from gradlab.claims.expressions import ClaimError
from gradlab.claims.pages import PAGE
from gradlab.claims.study import CLAIMS, FULL
from gradlab.records.files import write_whole

NAME = re.compile(r"[a-z][a-z0-9_]*")

EXPERIMENT = Template("""\
# @package _global_
# Does clipping let a network learn which of two symbols came first? 20 trainings, a minute
#
#   python analysis/reproduce.py $name
name: $name
defaults:
  - /network: tanh_basic
  - override /task: temporal_order
  - override /optim: sgd
  - override /clip: global_norm
  - _self_

model: {hidden_size: 50}
task: {length: 20, test_size: 1000}
optim: {learning_rate: 0.1}
train: {steps: 1000, batch_size: 20, log_every: 100}
probe: {jacobian: null, schedule: ends}

hydra:
  sweeper:
    params:
      clip.threshold: 0.3,1,3,inf
      seed: range(5)
""")
CLAIMED = Template("""\
title: $title
sources:
  - "Author, Author & Author year, *title*, figure or table."
rows: {}  # of sweeps: a function from the runs to rows; left empty, there is a row per training
points:  # a number per training, from its metrics over training; inf where the condition never held
  solved_at: first(train.step[eval.error_rate < 0.01])
  loss_end: last(eval.loss[eval.loss > 0])
  longest: max(train.grad_norm_clipped_max[train.grad_norm_clipped_max >= 0])
figure:  # or a function of your own in gradlab.studies
  _target_: gradlab.studies.swept.figure
  x: clip.threshold
  y: loss_end
  log_axes: [x]
  printed: []  # [x, y] of the source's points
source_settings:  # config keys and the source's values; a test compares them with what runs
  optim.learning_rate: 0.01
differs:  # each setting above that is another here, by its key, and why it decides nothing
  - "`optim.learning_rate` is 0.1 here: an example."
changed: []  # {what: …, before: …}: whatever was changed after a result was seen
claims:
  - id: $id.a
    claim: every clipped network solves the task
    source: the table or sentence that prints it
    provenance: published-number
    expected: 18 of 18 networks, to 20 %
    statistic:
      solved: count((solved_at < inf)[clip.threshold == 1])
      networks: size(solved_at[clip.threshold == 1])
      difference: rate_difference(solved, networks, 18, 18)
    test: agrees(solved, networks, 18, 18, 0.2)
    budget: {seeds: 5}
  - id: $id.b
    claim: clipped networks end with a smaller loss than others
    source: the figure that shows it
    provenance: published-order
    expected: p < 0.05, paired by seed
    statistic:
      p: >-
        wilcoxon(each(seed, first(loss_end))[clip.threshold == 1],
        each(seed, first(loss_end))[clip.threshold == inf])
    test: p < 0.05
  - id: $id.c
    claim: no clipped gradient is longer than the threshold
    source: definition of clipping
    provenance: exact
    expected: at most 1 times the threshold
    statistic:
      ratio: max((longest / clip.threshold)[clip.threshold < inf])
    test: ratio <= 1 + 1e-5
  - id: $id.d
    claim: a clipped network needs about as many updates as others say
    source: a review, or somebody's code
    provenance: second-hand
    expected: 0.5 to 2 times 1000 updates
    statistic:
      times: bootstrap_ratio(solved_at[clip.threshold == 1], 1000)
    test: 0.5 < times < 2
  - id: $id.e
    claim: networks that were solved without clipping
    source: this study
    provenance: own
    statistic:
      solved: rate((solved_at < inf)[clip.threshold == inf])
""")
README = Template("""\
# $title

Does clipping let a network learn which of two symbols came first?

## The source

Author, Author & Author year, *title*: what it claims, and at which settings.

## How to run it

```bash
python analysis/reproduce.py $name
```

<!-- lists: written by reproduce.py -->
<!-- end of lists -->

## What we saw

Nothing yet.
""")


def write_skeleton(root: Path, name: str) -> list[Path]:
    """Write the files of a new study, to be edited; return their paths.

    The study runs and is judged as it stands. It sweeps, so it needs no code.

    Args:
        root: the project's folder.
        name: the study's, of small letters, digits and underscores.

    Raises:
        ClaimError: the name is no name of a study, or taken.
    """
    if not NAME.fullmatch(name) or name.endswith(FULL):
        raise ClaimError(
            f"{name!r} is no name for a study: small letters, digits and underscores, "
            f"beginning with a letter and not ending in {FULL}."
        )
    folder = root / "experiments" / name
    texts = {
        root / "conf" / "experiment" / f"{name}.yaml": EXPERIMENT,
        folder / CLAIMS: CLAIMED,
        folder / PAGE: README,
    }
    for path in texts:
        if path.exists():
            raise ClaimError(f"{path.relative_to(root)} is there already: choose another name.")
    words = {"name": name, "title": name.replace("_", " ").capitalize(), "id": name.upper()}
    for path, template in texts.items():
        text = template.substitute(words)
        write_whole(path, partial(Path.write_text, data=text, encoding="utf-8"))
    return list(texts)
