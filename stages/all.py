"""Root stage: plan the graph from params.yaml, run the stages that are not cached, and report."""

import sys

from pipeline.__main__ import main

if __name__ == "__main__":
    sys.argv[1:] = ["run"]
    main()
