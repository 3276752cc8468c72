"""The root stage: plan the graph from params.yaml, run what is missing, and report."""

import sys

from pipeline.__main__ import main

if __name__ == "__main__":
    sys.argv[1:] = ["run"]
    main()
