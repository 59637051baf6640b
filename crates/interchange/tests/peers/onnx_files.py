"""Compares ONNX files with onnxruntime: `python onnx_files.py PROGRAM`, with the path of `diffuse`.

A test of this crate (`onnx_cases`) writes models, their ONNX files, inputs and our outputs; this script checks each file with
onnx.checker, runs it in onnxruntime and in tract (PyPI's packages of these names, tract of version 0.23.9), and compares the bytes
with those of `PROGRAM export`. Chains are not run in tract, which has no operator Loop: that it says so is checked. `ONNX_CASES` names
a folder of cases that is already there.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy
import onnx
import onnxruntime
import tract
from safetensors.numpy import load_file

NETWORK_TOLERANCE = 1e-4
CHAIN_TOLERANCE = 1e-3
STEPS = 20
ROOT = Path(__file__).resolve().parents[4]


def write_cases(folder):
    command = ["cargo", "test", "--workspace", "--test", "onnx_cases", "--", "--ignored"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "ONNX_CASES": folder}, check=True)


def run_onnxruntime(path):
    """The names of the inputs, and a function of their values that returns the first output."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 2
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    output = session.get_outputs()[0].name
    expected = "images" if is_chain(path.parent) else "prediction"
    assert output == expected, output
    return names, lambda values: session.run([output], dict(zip(names, values)))[0]


def run_tract(path):
    """The same in tract, for any number of images."""
    model = tract.onnx().load(str(path))
    names = [model.input_name(index) for index in range(model.input_count())]
    network = model.into_model().into_runnable()
    return names, lambda values: network.run(values)[0].to_numpy()


def is_chain(case):
    return case.name.startswith("chain")


def check(case, run):
    """The largest difference between another program's output and ours."""
    names, evaluate = run(case / "model.onnx")
    tensors = load_file(case / "tensors.safetensors")
    output, tolerance = ("images", CHAIN_TOLERANCE) if is_chain(case) else ("prediction", NETWORK_TOLERANCE)
    worst = 0.0
    for batch in (1, 3):
        theirs = evaluate([tensors[f"{name}.{batch}"] for name in names])
        ours = tensors[f"{output}.{batch}"]
        assert theirs.shape == ours.shape, (theirs.shape, ours.shape)
        assert numpy.isfinite(theirs).all(), "the output is not finite"
        assert numpy.abs(ours).max() > 0.05, "the output is too small to compare"
        worst = max(worst, float(numpy.abs(theirs - ours).max()))
    assert worst <= tolerance, f"{case.name}: differs by {worst}, more than {tolerance}"
    return worst


def check_refused(case):
    """tract says that it has no loops."""
    try:
        run_tract(case / "model.onnx")
    except Exception as error:
        assert "Loop" in str(error), error
    else:
        raise AssertionError("tract runs loops after all: compare the chains")


def check_program(program, case, folder):
    """`diffuse export` writes the same bytes as the library."""
    chain = ["--chain", str(STEPS)] if is_chain(case) else []
    out = Path(folder) / "program.onnx"
    command = [program, "export", str(case / "model.safetensors"), "--to", "onnx", "--out", str(out), *chain]
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes() == (case / "model.onnx").read_bytes(), f"{case.name}: other bytes than the library's"
    out.unlink()


def main():
    if len(sys.argv) != 2:
        sys.exit("give the path of the program diffuse, or - for none")
    program = None if sys.argv[1] == "-" else os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as temporary:
        folder = os.environ.get("ONNX_CASES")
        if folder is None:
            folder = temporary
            write_cases(folder)
        cases = sorted(path.parent for path in Path(folder).glob("*/model.onnx"))
        assert len(cases) > 30, f"{folder} has only {len(cases)} cases"
        for case in cases:
            onnx.checker.check_model(str(case / "model.onnx"), full_check=True)
            line = f"{case.name:<24}onnxruntime {check(case, run_onnxruntime):.1e}  "
            if is_chain(case):
                check_refused(case)
            else:
                line += f"tract {check(case, run_tract):.1e}"
            if program:
                check_program(program, case, temporary)
            print(line)


main()
