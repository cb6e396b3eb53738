"""`python -m unlimitedws.supervisor APP`."""

import sys

from unlimitedws.cli import serve_main

sys.exit(serve_main())
