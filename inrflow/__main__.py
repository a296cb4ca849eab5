"""`python -m inrflow` is `inrflow`."""

import sys

from inrflow.cli import main

sys.exit(main())
