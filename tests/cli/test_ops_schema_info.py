"""graphexec ops, schema, info, --version and --help."""

import json

import pytest

import graphexec


def test_ops_lists_all(invoke, slow_ops):
    lines = invoke("ops").stdout
    for name in ("copy ", "gemm ", "softmax "):
        assert f"\n{name}" in f"\n{lines}"
    assert "\nslow " in invoke("ops", "--ops", slow_ops).stdout


def test_the_page_of_an_op_has_everything_its_definition_says(invoke):
    page = " ".join(invoke("ops", "gemm").stdout.split())
    op = graphexec.known_ops()["gemm"]
    for text in (op.doc, *(o.text for o in op.operands), *(a.doc for a in op.attributes)):
        assert " ".join(text.split()) in page
    for item in (*op.operands, *op.attributes):
        assert f" {item.name} " in page


def test_an_op_of_an_expression(invoke):
    page = " ".join(invoke("ops", "map").stdout.split())
    assert "y: {op: map, expr: …}" in page
    assert "Operands are the tensors in `expr`" in page
    assert "gelu, gelu_tanh," in page


def test_an_op_without_attributes(invoke, slow_ops):
    done = invoke("ops", "slow", "--ops", slow_ops)
    assert done.exit_code == 0
    assert "Attributes" not in done.stdout


def test_an_unknown_op(invoke):
    done = invoke("ops", "softmx")
    assert done.exit_code == 2
    assert "did you mean 'softmax'?" in done.stderr


def test_ops_as_json(invoke):
    every = json.loads(invoke("ops", "--json").stdout)["ops"]
    assert {"copy", "gemm", "softmax"} <= {op["name"] for op in every}
    one = json.loads(invoke("ops", "gemm", "--json").stdout)["ops"]
    assert one == [op for op in every if op["name"] == "gemm"]
    assert one[0]["attributes"][0].keys() == {"name", "kind", "default", "choices", "doc"}


def test_a_folder_without_an_op(invoke, tmp_path):
    done = invoke("ops", "--ops", tmp_path)
    assert done.exit_code == 2
    assert "no op in folder" in done.stderr


def test_schema(invoke, slow_ops):
    text = invoke("schema").stdout
    assert json.loads(text)["$schema"].startswith("https://json-schema.org/")
    assert "slow" not in text
    assert "slow" in invoke("schema", "--ops", slow_ops).stdout


def test_info(invoke):
    done = invoke("info")
    assert done.exit_code == 0
    assert f"graphexec  {graphexec.__version__}\n" in done.stdout
    assert "cpu   usable" in done.stdout
    assert "hip" in done.stdout
    assert "numpy" in done.stdout


def test_info_as_json_says_why_a_device_is_not_usable(invoke):
    found = json.loads(invoke("info", "--json").stdout)
    assert found["packages"]["numpy"]
    assert found["cores"] >= 1
    for device in found["devices"]:
        assert device["usable"] or device["reasons"]


def test_version(invoke):
    assert invoke("--version").stdout == f"graphexec {graphexec.__version__}\n"


@pytest.mark.parametrize("command", ["run", "check", "plan", "compare", "ops", "schema", "info"])
def test_every_command_has_help(invoke, command):
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert "--json" in done.stdout or command in ("plan", "schema")


@pytest.mark.parametrize("command", ["run", "check", "compare", "ops", "info"])
def test_help_describes_the_json_document(invoke, command):
    assert "--json prints one object:\n" in invoke(command, "--help").stdout


def test_an_unknown_command(invoke):
    assert invoke("rum").exit_code == 2


def test_the_rewrites(invoke):
    known = gx_rewrites()
    text = invoke("ops", "--rewrites").stdout
    for each in known:
        assert f"  {each.name} " in text
        assert " ".join(each.doc.split()) in " ".join(text.split())
    listed = json.loads(invoke("ops", "--rewrites", "--json").stdout)["rewrites"]
    assert listed == [{"name": r.name, "default": r.default, "doc": r.doc} for r in known]
    assert invoke("ops", "gemm", "--rewrites").exit_code == 2


def gx_rewrites():
    from graphexec.planning.rewrite import known_rewrites

    return list(known_rewrites().values())
