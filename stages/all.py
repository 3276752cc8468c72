"""Root stage: plan the graph from params.yaml, run the stages that are not cached, and report."""

import sys

try:
    from pipeline.run import interrupts
except KeyboardInterrupt:
    sys.stderr.write("stopped: no stage was started\n")
    sys.exit(130)

if __name__ == "__main__":
    with interrupts.stoppable():
        from pipeline.__main__ import main

        sys.argv[1:] = ["run"]
        main()
