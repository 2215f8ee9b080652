"""Run several servers as one: python -m bench.serving.several COMMAND [--- COMMAND …]. SIGTERM ends them all."""

import itertools
import signal
import subprocess
import sys

SEPARATOR = "---"


def main() -> int:
    groups = itertools.groupby(sys.argv[1:], lambda part: part == SEPARATOR)
    processes = [subprocess.Popen(list(parts)) for is_separator, parts in groups if not is_separator]

    def end(*_: object) -> None:
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, end)
    return max(process.wait() for process in processes)


if __name__ == "__main__":
    sys.exit(main())
