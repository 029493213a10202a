"""The command `python -m gradlab.dashboard ENTITY/PROJECT`; see gradlab.tracking.dashboard."""

from gradlab.working_folder import leave_path

if __name__ == "__main__":
    leave_path()  # before anything else is imported

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradlab.tracking.dashboard import StudyPage


def study_page(name: str) -> "StudyPage":
    """Return the page of a study of the project in the current folder.

    Its verdicts are those of the reader's own results, below runs/, else of the bundled ones; of
    several scales the largest counts.

    Raises:
        ClaimError: there is no such study, or it has no results, or they cannot be judged.
    """
    from gradlab.claims.expressions import ClaimError
    from gradlab.claims.pages import study_text
    from gradlab.claims.results import load_results, scales_of
    from gradlab.claims.study import load_study, study_names
    from gradlab.claims.verdicts import judge
    from gradlab.tracking.dashboard import StudyPage

    if not study_names(Path.cwd()):
        raise ClaimError("--study reads experiments/ of the current folder, which has no study.")
    study = load_study(Path.cwd(), name)
    found = [(scales_of(study, folder), folder) for folder in (study.runs, study.folder)]
    scales, folder = next((place for place in found if place[0]), ([], study.folder))
    if not scales:
        raise ClaimError(f"{name} has no results: python analysis/reproduce.py {name} runs it.")
    table, manifest = load_results(study, scales[-1], folder)
    verdicts = [judge(claim, table) for claim in study.claims]
    return StudyPage(name, study.title, study_text(study, scales[-1], verdicts, manifest))


if __name__ == "__main__":
    from gradlab.tracking.dashboard import main

    main(study_page)
