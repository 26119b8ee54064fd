"""`python -m repowatch`: the command."""

import sys

from repowatch.cli import main

sys.exit(main())
