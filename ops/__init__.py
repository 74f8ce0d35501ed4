"""The built-in ops, one folder each: definition and HIP kernels. Installed as graphexec.ops."""
