"""A copy that, on the rank TROUBLE_RANK, ends badly at its second call, as TROUBLE says."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from graphexec.ops.kit import In, Op, Operand, Out, launch


class Trouble(Op):
    name = "trouble"
    doc = "x, and trouble."
    operands = (Operand("x", shape="(…)"),)
    result = "(…)"

    def reference(self, arrays, attrs, type):
        return arrays["x"]

    def lower(self, call):
        return [call.kernel("trouble", Copy(), In(call.operands["x"]), Out(call.out))]


CALLS = []


@dataclass(frozen=True)
class Copy:
    def __call__(self, x, out):
        return launch(Path(__file__), "trouble", (x, out), 1, 1, {}, self.on_cpu)

    def on_cpu(self, arrays, parallel):
        x, out = arrays
        out[...] = x
        CALLS.append(1)
        rank = os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("RANK"))
        if len(CALLS) == 2 and rank == os.environ.get("TROUBLE_RANK"):
            WAYS[os.environ["TROUBLE"]]()


def fail():
    raise ValueError("no such number")


WAYS = {
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "exit": lambda: os._exit(3),
    "fail": fail,
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "busy": lambda: time.sleep(3600),  # until it is ended
    "terminate": lambda: os.kill(os.getpid(), signal.SIGTERM),
}


OP = Trouble()
