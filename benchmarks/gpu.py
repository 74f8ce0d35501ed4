"""The HIP device against PyTorch and JAX on the same GPU, side by side in one process.

    python benchmarks/gpu.py [--only attention,softmax] [--json FILE]

Needs PyTorch with the GPU's platform (CUDA here, where graphexec runs as HIP over CUDA; ROCm on an
AMD GPU), and JAX for its columns. Inputs and outputs stay on the device unless a row says
otherwise. Every way is checked against float64 before its time counts. Times are medians over
turns of each way; a turn issues many runs back to back and is timed by device events on the way's
own stream. Whole runs are timed by the host, from before a run is issued until it is known to be
done. The ratios are the other way's time divided by graphexec's time.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import torch
from gpu_attention import attention_rows, decoding_rows, projection_rows
from gpu_requests import first_run_rows, host_rows, map_rows
from gpu_rows import row_rows, softmax_rows
from gpu_ways import Row, ceilings
from gpu_work import bias_rows, branch_rows, copy_rows, gemm_rows
from measure import table

import graphexec as gx

GROUPS: dict[str, Callable[[], Iterator[Row]]] = {
    "attention": attention_rows,
    "decoding": decoding_rows,
    "projections": projection_rows,
    "softmax": softmax_rows,
    "rows": row_rows,
    "copy": copy_rows,
    "branches": branch_rows,
    "gemm": gemm_rows,
    "bias": bias_rows,
    "map": map_rows,
    "host": host_rows,
    "first": first_run_rows,
}
HEADER = ["work", "graphexec, µs", "others take", "others take, whole runs", "more", "target"]


def main() -> None:
    warnings.simplefilter("error", gx.CaptureWarning)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(GROUPS), help="groups, by comma")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    top = ceilings()
    print(f"{gx.HipDevice().describe()}; {datetime.date.today()}; PyTorch {torch.__version__}")
    print(f"copies {top.copy:.0f} GB/s, f16 {top.f16:.0f} TFLOP/s, f32 {top.f32:.1f} TFLOP/s\n")
    rows = []
    for name, group in GROUPS.items():
        if name in args.only.split(","):
            for row in group():
                rows.append(row)
                print(" | ".join(row.line()), flush=True)
                if args.json:
                    args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print("\n" + table([HEADER, *(row.line() for row in rows)]))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GRAPHEXEC_PROFILES"] = folder  # profiles of this process only
        main()
