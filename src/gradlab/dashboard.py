"""The command `python -m gradlab.dashboard ENTITY/PROJECT`; see gradlab.tracking.dashboard."""

from gradlab.tracking.dashboard import main

if __name__ == "__main__":
    main()
