"""The page: self-contained text, and what a real browser makes of it."""

import json
import re

import pytest

import graphexec as gx
from graphexec.ir.plan import Launch, Plan
from graphexec.machine.costs import GPU
from graphexec.planning.pipeline import plan_graph
from graphexec.proof import Hazard
from graphexec.runtime.trace import Span, Trace
from graphexec.views.outline import of_graph
from graphexec.views.page import to_html
from graphexec.views.text import to_text


@pytest.fixture(scope="module")
def compiled():
    graph = gx.load("graphs/multi_head_attention.yaml")
    return plan_graph(graph, costs=GPU, no_rewrite=["all"])


@pytest.fixture(scope="module")
def trace(compiled) -> Trace:
    numbers = [n for n, i in enumerate(compiled.plan.instructions) if isinstance(i, Launch)]
    spans = tuple(Span(n, 30.0 * k, 30.0 * k + 25) for k, n in enumerate(numbers))
    return Trace(compiled.plan.graph, "cpu", spans, uninstrumented=400.0)


@pytest.fixture(scope="module")
def page(compiled, trace) -> str:
    return to_html(compiled.plan, outline=of_graph(compiled.graph), trace=trace)


def data_of(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(found[1])


# Text -----------------------------------------------------------------------------------


def test_nothing_is_fetched(page):
    urls = set(re.findall(r"https?://[^\"' <]+", page))
    assert urls == {"http://www.w3.org/2000/svg"}
    assert "{{" not in page


def test_the_data_says_everything_about_a_node(page):
    scores = next(i for i in data_of(page)["launches"] if i["node"] == "scores")
    assert scores["type"] == "f32[2, 4, 64, 64] · 128 KiB"
    assert scores["line"] == 25
    assert any("q_heads" in r for r in scores["reads"])
    waits = [wait["why"] for i in data_of(page)["launches"] for wait in i["waits"]]
    assert any("reads" in why for why in waits)
    assert scores["measured"].startswith("25 µs")


def test_the_certificate_is_never_a_claim(compiled, attention):
    assert "✓ proved free of races" in to_html(compiled.plan)
    kept = tuple(i for i in attention.instructions if getattr(i, "role", "") != "dependency")
    racy = Plan("p", "cpu", {}, attention.streams, attention.buffers, attention.tensors, kept)
    assert "✗ refuted" in to_html(racy)
    assert 'class="rx"' in to_html(racy)


def test_the_certificate_says_how_near_the_best_the_plan_is(compiled):
    page = to_html(compiled.plan)
    found = re.search(r'<p id="certificate" class="proved">(.*?)</p>', page, re.DOTALL)
    assert found
    assert found[1].splitlines()[1] == to_text(compiled.plan).splitlines()[-1]
    assert "minimum for this order" in found[1]
    refuted = to_html(compiled.plan, hazards=[Hazard("RAW", "x")])
    assert "minimum for this order" not in refuted


def test_names_cannot_break_out(sketch):
    s = sketch("</script><script>alert(1)</script>{{data}}", 1)
    s.tensor("</script>&<b>'\"", (4, 4))
    s.input(0, "</script>&<b>'\"")
    page = to_html(s.plan())
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<b>" not in page


def test_rewrites_are_told_and_what_they_took_in_is_found():
    compiled = plan_graph(gx.load("graphs/multi_head_attention.yaml"))
    outline = of_graph(compiled.graph)
    page = to_html(compiled.plan, outline=outline, notes=compiled.notes)
    done = [note for note in compiled.notes if note.applied]
    assert f"{len(done)} rewrites of what was written" in page
    assert "became the attention" in page
    data = data_of(page)
    merged = next(n for n, i in enumerate(data["launches"]) if i["command"] == "attention")
    assert f'data-n="scores" data-l="{merged}"' in page
    assert any("fuse-attention" in text for text in data["launches"][merged]["rewrites"])
    assert "scores" in data["search"][data["launches"][merged]["instruction"]]
    batch = next(n for n, i in enumerate(data["launches"]) if "…" in i["node"])
    for node in "qkv":
        assert f'data-n="{node}" data-l="{batch}"' in page
    assert "rewrites of what" not in to_html(compiled.plan, outline=outline)


# In a browser ---------------------------------------------------------------------------


@pytest.fixture
def show(browser, tmp_path):
    """`show(page)` opens it; at the end nothing may have been said in the console."""

    def show(page: str):
        (tmp_path / "page.html").write_text(page, encoding="utf-8")
        browser.get((tmp_path / "page.html").as_uri())
        return browser

    yield show
    assert browser.get_log("browser") == []


def css(browser, selector: str):
    return browser.find_elements("css selector", selector)


def test_a_click_lights_up_a_node_everywhere(show, page):
    browser = show(page)
    launches = data_of(page)["launches"]
    scores = next(n for n, i in enumerate(launches) if i["node"] == "scores")
    pictures = css(browser, ".picture")
    pictures[1].find_element("css selector", f'g[data-l="{scores}"]').click()
    for picture in pictures:  # measured, lanes, memory, graph
        assert picture.find_elements("css selector", "g.hot")
    assert [row.text.split()[2] for row in css(browser, "#list .hot")] == ["scores"]
    about = css(browser, "#about")[0].text
    for said in ("scores", "gemm", "f32[2, 4, 64, 64]", "line 25", "predicted", "measured"):
        assert said in about
    assert len(css(browser, "path.hot")) == len(launches[scores]["waits"])


def test_pointing_is_a_click_that_does_not_last(show, page):
    from selenium.webdriver import ActionChains

    browser = show(page)
    box = css(browser, 'g[data-l="3"]')[0]
    ActionChains(browser).move_to_element(box).perform()
    assert css(browser, "g.hot")
    ActionChains(browser).move_to_element(css(browser, "h1")[0]).perform()
    assert not css(browser, "g.hot")


def test_search_filters_the_list_and_dims_the_pictures(show, page):
    browser = show(page)
    field = css(browser, "#search")[0]
    field.send_keys("softmax")
    assert css(browser, "#found")[0].text.startswith("1 of ")
    assert len([r for r in css(browser, "#list > div") if r.is_displayed()]) == 1
    assert css(browser, "g.dim")
    field.send_keys("\n")
    assert "probs" in css(browser, "#about h2")[0].text
    field.send_keys("\ue00c")  # escape
    assert not css(browser, "g.dim")


@pytest.fixture(scope="module")
def confusing():
    """Nodes called like an op, like parts of other names, and like one another in small letters."""
    graph = gx.Graph("confusing")
    x = graph.input("x", (8, 8))
    name = graph.gemm(x, x, name="soft")
    for called in ("gemm_x", "arena", "GEMM", "gemm", "of"):
        name = graph.softmax(name, name=called)
    graph.output(result=name)
    compiled = plan_graph(graph)
    return to_html(compiled.plan, outline=of_graph(compiled.graph), notes=compiled.notes)


@pytest.mark.parametrize(("query", "node"), [
    ("gemm", "gemm"), ("GEMM", "GEMM"), ("of", "of"), ("arena", "arena"), ("softmax", "gemm_x"),
    ("gem", "gemm_x"), ("SOFT", "soft"), ("x", "x.h2d"), ("mm_", "gemm_x"), ("f32", "x.h2d"),
    ("d2h", "of.d2h"),
])  # fmt: skip
def test_what_is_called_like_the_query_is_found_first(show, confusing, query, node):
    """Not an earlier node with the word in its command, type or operands."""
    browser = show(confusing)
    css(browser, "#search")[0].send_keys(query, "\n")
    assert css(browser, "#about h2")[0].text == node


def test_nothing_is_chosen_where_nothing_is_found(show, confusing):
    browser = show(confusing)
    css(browser, "#search")[0].send_keys("nowhere", "\n")
    assert css(browser, "#found")[0].text.startswith("0 of ")
    assert not css(browser, "#about h2")


def test_nodes_without_a_launch_of_their_own_are_found_by_their_names(show):
    """A member of a batch that its title leaves out, and what a rewrite took into another node."""
    compiled = plan_graph(gx.load("graphs/multi_head_attention.yaml"))
    page = to_html(compiled.plan, outline=of_graph(compiled.graph), notes=compiled.notes)
    for query, title in (("k", "q … v (3)"), ("scores", "merged")):
        browser = show(page)
        css(browser, "#search")[0].send_keys(query, "\n")
        assert css(browser, "#about h2")[0].text == title


def test_of_several_launches_of_a_node_the_one_that_makes_its_result_is_chosen(show):
    compiled = plan_graph(gx.load("graphs/multi_head_attention.yaml"), device="hip")
    browser = show(to_html(compiled.plan, outline=of_graph(compiled.graph)))
    css(browser, "#search")[0].send_keys("y", "\n")
    commands = [i["command"] for i in data_of(browser.page_source)["launches"] if i["node"] == "y"]
    assert commands == ["copy", "gemm"]
    assert css(browser, "#about dd")[0].text == "gemm"


def test_keys_walk_the_list_and_zoom(show, page):
    browser = show(page)
    body = css(browser, "body")[0]
    titles = []
    for key in "jjk":
        body.send_keys(key)
        titles.append(css(browser, "#about h2")[0].text)
    assert titles[0] == titles[2] != titles[1]
    before = css(browser, ".picture svg")[0].size["width"]
    body.send_keys("+")
    assert css(browser, ".picture svg")[0].size["width"] > before
    body.send_keys("0", "\ue00c")
    assert css(browser, "#about h2")[0].text == "Nothing chosen"


def test_dark_and_light(show, page):
    browser = show(page)
    ground = "return getComputedStyle(document.body).backgroundColor"
    ink = "return getComputedStyle(document.querySelector('.picture text.tx')).fill"
    light = browser.execute_script(ground), browser.execute_script(ink)
    css(browser, "#theme")[0].click()
    dark = browser.execute_script(ground), browser.execute_script(ink)
    assert light == ("rgb(255, 255, 255)", "rgb(27, 27, 27)")
    assert dark == ("rgb(22, 24, 27)", "rgb(236, 236, 236)")
    critical = css(browser, "g[data-l] > rect.kn")[0]
    edge = "return getComputedStyle(arguments[0]).stroke"
    assert browser.execute_script(edge, critical) == "rgb(255, 255, 255)"
    critical.click()
    assert browser.execute_script(edge, critical) == "rgb(255, 77, 90)", "what is chosen is red"
    css(browser, "#theme")[0].click()
    assert browser.execute_script(ground) == light[0]


def test_the_system_s_setting_counts(show, page):
    browser = show(page)
    feature = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert ground == "rgb(22, 24, 27)"


def test_a_thousand_launches_can_be_used(show, chains):
    plan = chains(8, 4, 125)
    browser = show(to_html(plan))
    assert len(css(browser, ".picture:first-of-type g[data-l]")) >= 1000
    ready = browser.execute_script("return +document.documentElement.dataset.ready")
    print(f"1,000 launches: interactive after {ready} ms")
    assert ready > 0
    css(browser, "#list > div")[20].click()
    assert css(browser, "g.hot")


def test_awkward_names_are_shown_as_they_are(show, awkward):
    browser = show(to_html(awkward))
    assert "подграф" in css(browser, "#list")[0].text
