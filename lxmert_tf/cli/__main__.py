"""`python -m lxmert_tf.cli` is `lxmert-tf`."""

import sys

from lxmert_tf.cli import main

sys.exit(main())
