"""Worker process that times networks: `python -m nasjax.hardware.worker THREADS`.

Reads pickled requests (network, input shapes, precision) from standard input and writes a pickled reply to each on standard
output: a `Latency`, a ConfigError, or any other error as one line of text.
"""

import os
import pickle
import select
import signal
import sys
import threading
import time


def main(threads: int) -> None:
    """Answers requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; this process ends with it.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # XLA counts its processors when it starts, which is at the first network.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Whatever libraries print must not get between the replies.
    from nasjax.errors import ConfigError
    from nasjax.hardware.devices import LocalDevice
    from nasjax.hardware.energy import optional_energy_counter
    from nasjax.hardware.pace import Pace
    from nasjax.host import processor_name

    clock = time.perf_counter
    pace = Pace(clock)
    reply: object
    while True:
        try:
            network, inputs, precision = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        except (AttributeError, ImportError) as error:
            reply = ConfigError(f"{error}; define a super-network's class in a module, not in the script that runs")
        else:
            import jax

            counter = optional_energy_counter()
            try:
                cpu = jax.devices("cpu")[0]
                device = LocalDevice(cpu, processor_name(), threads, precision, clock, counter, pace)
                reply = device(network, inputs)
            except ConfigError as error:
                reply = error
            except Exception as error:
                reply = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        pickle.dump(reply, replies)
        replies.flush()


def _end_with_parent() -> None:
    """Ends this process at once, even during a measurement, when the parent was killed: nobody can write to it any more."""
    if hasattr(select, "poll"):
        hang_up = select.poll()
        hang_up.register(0, 0)  # No events but the hang-up, which is always reported.
        hang_up.poll()
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
