"""Bytes for tensors: who may share, how small the arena can get, and where everybody goes."""
