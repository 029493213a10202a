"""`python -m gradlab.dashboard ENTITY/PROJECT`: a saved view and a report of a W&B project."""

from gradlab.tracking.dashboard import main

if __name__ == "__main__":
    main()
