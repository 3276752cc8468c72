"""Root stage: plan the graph from params.yaml, run the stages that are not cached, and report."""

import sys

try:
    from pipeline.__main__ import main
except KeyboardInterrupt:
    sys.stderr.write("stopped: no stage was started\n")
    sys.exit(130)

if __name__ == "__main__":
    sys.argv[1:] = ["run"]
    main()
