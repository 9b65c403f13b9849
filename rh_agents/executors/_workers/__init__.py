"""Worker processes of our own, for functions that keep a processor busy.

Why our own: what others offer is made for other work. `multiprocessing` (and with it `ProcessPoolExecutor`) and
`anyio.to_process` execute the user's main file in every worker, so a script without a guard pays for its calls once
more in each of them; anyio speaks over stdout, where `print` breaks in; both share the terminal's process group, so
Ctrl-C ends the workers before the run has had its grace; a pool is broken for everybody when one process dies, and says
neither how it died nor which call that was. `loky` mends the last point only.

**One worker** is a fresh interpreter (no fork: threads and event loops do not survive one) that executes `main.py`
here. It is handed one end of a socket pair for the *wire*, the reading end of a pipe for its *lifeline*, the writing
end of a pipe for its *mark*, and the parent's `sys.path`. Its stdin is empty; stdout and stderr are the parent's own,
since the wire does not need them.

**The wire** (`wire.py`) carries frames: one call at a time goes to the worker; records of `logging`, reported
usage and in the end what the function returned or raised come back. Everything is pickled: both ends are our own
processes, and nothing of it is stored. The parent reads and writes with the socket methods of whichever event loop
makes the call, so an idle worker belongs to no loop and serves all of them.

**What to call** (`functions.py`): by name where a module can be imported, so that a worker has the module as it is on
disk; by value (cloudpickle) where none can: the main program, a notebook, stdin. The main file is never executed again.

**What it raised** (`failures.py`): exceptions often do not survive pickling, and when they do not, they raise something
else, in the wrong process. Each is tried; if it does not come out as it went in, it is built again without its
`__init__`: class, arguments, attributes as far as they travel, text, notes, causes.

**How it ends.** A worker is the leader of its own session. When it is no longer wanted (its call timed out or was
cancelled) the whole session is killed, with what the function had started. When the *parent* dies, however it does, the
lifeline's writing end is closed by the kernel: on Linux the kernel itself then kills the worker's process group (a pipe
with O_ASYNC sends the signal that was set), which works also while C code holds the interpreter's lock; elsewhere a
thread that reads the lifeline does it. A thread of the parent waits for each worker, so that a death is noticed also
when a grandchild holds the socket open, and its exit status tells why. A signal that is meant for all processes of a
service (SIGTERM from a supervisor) is ignored by workers: the parent decides when they end.

**A lost worker.** The mark tells whether the function may have been called: a byte is written just before, into a pipe
that the parent looks into only if the worker dies, so that nobody is woken for it. Before it, another worker takes the
call, and no one needs to know. After it the outcome is unknown, so `WorkerLost` is raised and `on_unknown` decides
(core/_run/attempts.py).
"""
