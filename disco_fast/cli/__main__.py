"""``python -m disco_fast.cli``, for where the script ``disco-fast`` is not on the PATH."""

import sys

from .main import main

sys.exit(main())
