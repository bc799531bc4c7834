"""``python -m disco_fast.cli``, for where the script ``disco-fast`` is not on the PATH."""

import sys

from .main import main

if __name__ == "__main__":  # and not in a process that it has started
    sys.exit(main())
