"""The installed program: exit codes, streams, signals, pipes, and mistakes of its own."""

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("graphexec")
CPU = ("--device", "cpu")


def test_results_and_diagnostics_go_their_own_ways(program, graph):
    done = program("run", graph(), *CPU)
    assert done.returncode == 0
    assert "output" in done.stdout
    assert "note:" not in done.stdout
    assert done.stderr == "note: inputs x and w drawn from a normal distribution with seed 0\n"


def test_exit_codes(program, graph, racy):
    assert program("check", graph()).returncode == 0
    assert program("check", racy).returncode == 1
    assert program("check", "missing.yaml").returncode == 2
    assert program("run", graph(), "--streams", "0").returncode == 2


@pytest.mark.skipif(
    os.path.exists("/dev/kfd") or os.path.exists("/dev/nvidiactl"), reason="has a GPU"
)
def test_a_device_that_is_not_there_is_exit_code_3(program, graph):
    done = program("run", graph(), "--device", "hip")
    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    done = program("run", graph(), "--device", "auto")
    assert done.returncode == 0
    assert "warning: running on the CPU" in done.stderr


def test_python_m_graphexec_is_the_same_program(program):
    done = subprocess.run(
        [sys.executable, "-m", "graphexec", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == program("--version").stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['graphexec', '--help']\n"
        "from graphexec.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'rich', 'yaml', 'networkx', 'hip', 'ml_dtypes'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# Ctrl-C ---------------------------------------------------------------------------------


@contextmanager
def begun(
    arguments: list[object], sign: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The started program, after the file `sign` shows that it is working."""
    with subprocess.Popen(
        [PROGRAM, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "BEGUN": str(sign), "SECONDS": "30", **environment},
    ) as process:  # fmt: skip
        limit = time.monotonic() + 60
        while not sign.exists() and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        assert process.poll() is None, process.stderr.read()
        yield process


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C: the program says so and ends, without a stack trace."""
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - start < 2  # a second, and a busy machine
    assert process.returncode == 130
    assert out == b""
    assert err.endswith(b"interrupted\n")
    assert err.count(b"interrupted") == 1
    assert b"Traceback" not in err


@pytest.mark.parametrize("phase", ["plan", "run"])
def test_ctrl_c_while_planning_and_running(graph, slow_ops, tmp_path, phase):
    path = graph(("op: softmax", "op: slow"))
    arguments = ["run", path, *CPU, "--ops", slow_ops, "-o", tmp_path / "out.npz"]
    with begun(arguments, tmp_path / "begun", DAWDLE=phase) as process:
        interrupt(process)
    assert {p.name for p in tmp_path.iterdir()} == {"begun", "slow", "tiny.yaml"}


def test_sigterm_while_running(graph, slow_ops, tmp_path):
    path = graph(("op: softmax", "op: slow"))
    arguments = ["run", path, *CPU, "--ops", slow_ops, "-o", tmp_path / "out"]
    with begun(arguments, tmp_path / "begun", DAWDLE="run") as process:
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 143
    assert (out, err.splitlines()[-1]) == (b"", b"terminated")
    assert {p.name for p in tmp_path.iterdir()} == {"begun", "slow", "tiny.yaml"}


@pytest.mark.parametrize("command", ["check", "plan", "compare"])
def test_ctrl_c_in_other_commands(graph, slow_ops, tmp_path, command):
    path = graph(("op: softmax", "op: slow"))
    arguments = [command, path, "--ops", slow_ops]
    with begun(arguments, tmp_path / "begun", DAWDLE="plan") as process:
        interrupt(process)


# Files that are none --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_a_text_is_executed(tmp_path, number):
    """Such as the making of a dataclass: Python itself would end by SIGINT then, of a module."""
    text = f"import os, time; os.kill(os.getpid(), {number}); time.sleep(9)"
    (tmp_path / "late.py").write_text(
        "import sys; from graphexec.cli import app, main; sys.argv = ['graphexec', 'info']\n"
        f"app.info.callback = lambda *a, **k: exec({text!r})\nmain()"
    )
    command = [sys.executable, "-m", "late"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30)
    words = {signal.SIGINT: b"interrupted\n", signal.SIGTERM: b"terminated\n"}
    assert (done.returncode, done.stderr) == (128 + number, words[number])


@pytest.mark.parametrize("what", ["pipe", "device"])
@pytest.mark.parametrize("arguments", [
    "run {}", "check {}", "plan {}.yaml", "check {}.json", "plan tiny.yaml --costs {}",
    "plan tiny.yaml -o p.svg --trace {}", "run tiny.yaml -i x={}.npy", "run tiny.yaml -i {}.npz",
    "run weights.yaml --weights-root /",
    "bench tiny.yaml --device cpu --baseline {}",
])  # fmt: skip
def test_what_is_no_file_is_refused_and_not_waited_for(program, graph, tmp_path, arguments, what):
    """Nobody writes to the pipe, so whoever opened it would wait; /dev/zero has no end."""
    graph()
    (tmp_path / "weights.yaml").write_text(
        "version: 1\nname: g\nweights: {w: {file: w.npy}}\nnodes: {y: {op: copy, x: w}}\n"
        "outputs: {y: y}\n"
    )
    for ending in ("", ".yaml", ".json", ".npy", ".npz"):
        path = tmp_path / f"odd{ending}"
        os.mkfifo(path) if what == "pipe" else path.symlink_to("/dev/zero")
    (tmp_path / "w.npy").symlink_to(tmp_path / "odd.npy")
    done = program(*arguments.format("odd").split(), cwd=tmp_path)
    assert done.returncode == 2
    assert f"it is a {what}, not a file" in done.stderr
    assert "cannot read" in done.stderr


# Pipes and terminals --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["plan {} --device cpu", "ops gemm", "run {} --device cpu --json"]
)
def test_a_reader_that_leaves_early_is_no_error(graph, command):
    path = graph()
    done = subprocess.run(
        ["bash", "-c", f"{PROGRAM} {command.format(path)} | true; echo ${{PIPESTATUS[0]}}"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout in ("141\n", "0\n")
    assert "rror" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk_behind_standard_output(graph):
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [PROGRAM, "plan", graph(), *CPU], stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "error: cannot write the results: No space left on device\n"


def test_a_terminal_that_knows_ascii_only(program, graph):
    done = program("plan", graph(), *CPU, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert "tiny" in done.stdout


def test_progress_is_shown_on_a_terminal_only(graph, slow_ops, tmp_path):
    path = graph(("op: softmax", "op: slow"))
    arguments = [PROGRAM, "run", path, *CPU, "--ops", slow_ops]
    environment = {**os.environ, "BEGUN": str(tmp_path / "b"), "SECONDS": "2.5", "DAWDLE": "run",
                   "TERM": "xterm"}  # fmt: skip
    quiet = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=True)
    assert "running" not in quiet.stderr
    assert b"running on cpu" in on_a_terminal(arguments, environment)


def test_many_runs_have_a_bar(graph, slow_ops, tmp_path):
    path = graph(("op: softmax", "op: slow"))
    counts = ["-n", "2", "--warmup", "4"]
    arguments = [PROGRAM, "bench", path, *CPU, "--ops", slow_ops, "--streams", "1", *counts]
    environment = {**os.environ, "BEGUN": str(tmp_path / "b"), "SECONDS": "0.4", "DAWDLE": "run",
                   "TERM": "xterm"}  # fmt: skip
    shown = on_a_terminal(arguments, environment).decode()
    assert re.search(r"2 runs on cpu, 1 streams?: warming up.*[34]/4", shown)
    assert "whole runs" in shown
    quiet = on_a_terminal([PROGRAM, "-q", *arguments[1:]], {**environment, "SECONDS": "0.1"})
    assert quiet == b""


def on_a_terminal(arguments, environment) -> bytes:
    """What a program says to a terminal on standard error."""
    terminal, other = pty.openpty()
    subprocess.run(arguments, stdout=subprocess.DEVNULL, stderr=other, env=environment, check=True)
    os.close(other)
    shown = b""
    while chunk := _read(terminal):
        shown += chunk
    os.close(terminal)
    return shown


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how a terminal without a program says that it is empty
        return b""


# Mistakes of our own --------------------------------------------------------------------

# A fault planted in graphexec, as an op's own would be reported as the op's.
BROKEN = """\
import graphexec.planning.pipeline
from graphexec.ir.op import Op, Operand
def finish(*arguments, **more):
    raise ZeroDivisionError("oops")
graphexec.planning.pipeline.finish = finish
class Broken(Op):
    name, doc, operands = "broken", "Plants a fault.", (Operand("x", "anything"),)
OP = Broken()
"""


def test_an_unexpected_exception_asks_for_a_report(program, graph, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "__init__.py").write_text(BROKEN)
    path = graph()
    done = program("run", path, "--ops", tmp_path / "broken")
    assert done.returncode == 1
    assert "internal error: ZeroDivisionError: oops" in done.stderr
    assert f"graphexec --debug run {path} --ops" in done.stderr
    assert "Traceback" not in done.stderr
    traced = program("--debug", "run", path, "--ops", tmp_path / "broken")
    assert "Traceback" in traced.stderr


@pytest.mark.parametrize("columns", [40, 58])
@pytest.mark.parametrize("command", [("run",), ("compare",), ("ops",), ("ops", "gemm")])
def test_tables_fit_a_narrow_terminal(graph, columns, command):
    more = () if command[0] == "ops" else (str(graph()), "--device", "cpu")
    main, terminal = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "NO_COLOR": "1"}
    with subprocess.Popen([PROGRAM, *command, *more], stdout=terminal, stderr=subprocess.DEVNULL,
                          env=env) as process:  # fmt: skip
        os.close(terminal)
        shown = b""
        try:
            while part := os.read(main, 1 << 16):
                shown += part
        except OSError:  # the end of a terminal on Linux
            pass
        assert process.wait(60) == 0
    os.close(main)
    lines = shown.decode().splitlines()
    rows = lines if command[0] == "ops" else lines[2:-1]  # not the sentences around
    assert rows
    assert max(len(line) for line in rows if "{op:" not in line) <= columns
