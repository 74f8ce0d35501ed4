"""A HIP runtime, hiprtc, hipBLAS and hipBLASLt on host threads. See README.md."""
