"""The process that times networks: `python -m nasjax.hardware.worker THREADS` reads and writes pickles."""

import os
import pickle
import sys
import time


def main(threads: int) -> None:
    """Times what comes in, until nothing does; an error goes back as one line."""
    # XLA counts its processors when it starts, which is at the first network.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Whatever is printed meanwhile must not stand among the answers.
    from nasjax.hardware.devices import Here, processor

    while True:
        try:
            network, inputs, precision = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        except (AttributeError, ImportError) as error:
            pickle.dump(f"{error}; a super-network's class must stand in a module, not in the script that runs", out)
            out.flush()
            continue
        import jax

        try:
            device = Here(jax.devices("cpu")[0], processor(), threads, precision, time.perf_counter)
            answer: object = device(network, inputs)
        except Exception as error:
            answer = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        pickle.dump(answer, out)
        out.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]))
