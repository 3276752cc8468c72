"""Root stage: plan the graph from params.yaml, run the stages that are not cached, and report."""

import sys

from pipeline.run import interrupts

try:
    interrupts.stop_by_signals()
    from pipeline.__main__ import main
except KeyboardInterrupt:
    sys.stderr.write("stopped: no stage was started\n")
    sys.exit(interrupts.INTERRUPTED)

if __name__ == "__main__":
    sys.argv[1:] = ["run"]
    main()
