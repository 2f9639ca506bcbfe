"""The process that times networks: `python -m nasjax.hardware.worker THREADS` reads and writes pickles."""

import os
import pickle
import select
import signal
import sys
import threading
import time


def main(threads: int) -> None:
    """Times what comes in, until nothing does; an error goes back as one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; this ends with it.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # XLA counts its processors when it starts, which is at the first network.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Whatever is printed meanwhile must not stand among the answers.
    from nasjax.hardware.devices import Failed, Here
    from nasjax.hardware.energy import counter_here
    from nasjax.hardware.pace import Pace
    from nasjax.host import processor_name

    clock = time.perf_counter
    pace = Pace(clock)
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
            device = Here(jax.devices("cpu")[0], processor_name(), threads, precision, clock, counter_here(), pace)
            answer: object = device(network, inputs)
        except Failed as error:
            answer = error
        except Exception as error:
            answer = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        pickle.dump(answer, out)
        out.flush()


def _end_with_parent() -> None:
    """Ends this process at once, whatever it times, when nobody is left who could write to it: its parent was killed."""
    if hasattr(select, "poll"):
        hung_up = select.poll()
        hung_up.register(0, 0)  # Nothing but the hang-up, which is always told.
        hung_up.poll()
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
