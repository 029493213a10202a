"""The command `python -m gradlab.dashboard ENTITY/PROJECT`; see gradlab.tracking.dashboard."""

from gradlab.working_folder import leave_path

if __name__ == "__main__":
    leave_path()  # before anything that is no part of Python is imported

    from gradlab.tracking.dashboard import main

    main()
