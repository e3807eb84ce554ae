"""The MLflow mirror of the run store, sent or looked at: `python -m mal.tracking`."""

import sys

from mal.engine.tracking import main, without_password

if __name__ == "__main__":
    without_password(sys.argv[1:])
    sys.exit(main())
