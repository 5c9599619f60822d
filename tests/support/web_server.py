"""`lxmert-tf ARGUMENTS`, which knows the tiny detector of tests: python -m support.web_server web ..."""

import sys

import support.detector  # noqa: F401 (its depth)

from lxmert_tf.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
