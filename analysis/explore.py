"""A sweep as an interactive page of its maps over training: analysis/explore.py --runs FOLDER."""

from pathlib import Path

from gradlab.figures import command
from gradlab.figures.explorer import PAGE_CELLS, PAGE_STEPS, explorer_data, explorer_page
from gradlab.figures.places import check_place
from gradlab.records.files import write_whole


def main() -> None:
    """Write the page and print its path."""
    parser = command.Parser(description=command.summary_of(__doc__))
    command.add_source(parser)
    parser.add_argument("--out", type=Path, help="the page (default: explore.html beside the runs)")
    parser.add_argument(
        "--cells", type=command.count, default=PAGE_CELLS, help="along a map's axis"
    )
    parser.add_argument(
        "--steps", type=command.count, default=PAGE_STEPS, help="of training, a run"
    )
    arguments = parser.parse_args()
    path = arguments.out or (arguments.runs or Path()) / "explore.html"
    path = path if path.suffix else path.with_suffix(".html")  # or a browser shows text
    with command.exit_on_user_error():
        if path.suffix not in (".html", ".htm"):
            raise ValueError(f"--out must end in .html; got {str(path)!r}.")
        if arguments.out is None:
            check_place(path)
        runs = command.read_runs(arguments)
        page = explorer_page(explorer_data(runs, arguments.cells, arguments.steps))
        write_whole(path, lambda unfinished: unfinished.write_text(page, encoding="utf-8"))
    print(path)


if __name__ == "__main__":
    main()
