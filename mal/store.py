"""What the store holds, what of it can go, and why two results have different keys: `python -m mal.store`."""

import sys

from mal.engine.store.command import main

if __name__ == "__main__":
    sys.exit(main())
