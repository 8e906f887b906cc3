"""Run as a script: become the given program, but die when the parent dies.

    python -I -S child.py PARENT_PID PROGRAM ARGUMENT...

The kernel is asked to send SIGKILL to this process when its parent ends (PR_SET_PDEATHSIG, kept
across exec), then the program replaces this one: the parent's child is the program itself. A
separate script and no `preexec_fn`, because the latter runs Python between fork and exec, which
may deadlock in a process with threads. Standard library only; it runs without site-packages.
"""

import ctypes
import os
import signal
import sys

# linux/prctl.h
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Ask for the signal, then exec."""
    parent_pid = int(sys.argv[1])
    argv = sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        sys.stderr.write("warning: this process will outlive a killed parent: prctl failed\n")
    # The parent may have ended before the request was made: then no signal would be sent.
    if os.getppid() != parent_pid:
        raise SystemExit(1)
    os.execvp(argv[0], argv)  # noqa: S606 - the argument vector comes from our own parent


if __name__ == "__main__":
    main()
