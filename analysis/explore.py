"""A sweep as an interactive page of its maps over training: analysis/explore.py --runs FOLDER."""

from pathlib import Path

from gradlab.figures import command
from gradlab.figures.explorer import CELLS, STEPS, explorer_data, explorer_page


def main() -> None:
    """Write the page, and say where it is."""
    options = command.Parser(description=(__doc__ or "").partition(":")[0])
    command.add_source(options)
    options.add_argument(
        "--out", type=Path, help="the page (default: explore.html beside the runs)"
    )
    options.add_argument("--cells", type=command.count, default=CELLS, help="along a map's axis")
    options.add_argument("--steps", type=command.count, default=STEPS, help="of training, a run")
    given = options.parse_args()
    with command.one_sentence():
        page = explorer_page(explorer_data(command.source_of(given), given.cells, given.steps))
        out = given.out or (given.runs or Path()) / "explore.html"
        out = out if out.suffix else out.with_suffix(".html")  # or a browser shows text
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")
    print(out)


if __name__ == "__main__":
    main()
