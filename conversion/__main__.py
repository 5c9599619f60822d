"""`python -m conversion` is `lxmert-convert`."""

import sys

from conversion.cli import main

sys.exit(main())
