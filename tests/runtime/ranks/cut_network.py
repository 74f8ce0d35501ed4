"""Runs two ranks in a network of their own, and cuts it: `unshare -rn python cut_network.py`.

What they say then is printed.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import start_ranks

PROGRAM = Path(__file__).with_name("rank_programs.py")
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP


def switch(on: bool) -> None:
    """The loopback interface (netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH", b"lo", 0)
        found = fcntl.ioctl(any_socket, _GET_FLAGS, request + bytes(24))
        flags = struct.unpack("16sH", found[:18])[1]
        flags = flags | _UP if on else flags & ~_UP
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH", b"lo", flags) + bytes(24))


def main() -> None:
    switch(True)
    ranks = start_ranks.begin(2, [sys.executable, str(PROGRAM), "ready_to_be_cut"])
    assert ranks[0].stdout is not None
    for rank in ranks:
        assert rank.stdout is not None
        assert rank.stdout.readline() == "ready\n"
    switch(False)
    done = start_ranks.finish(ranks)
    print(done.out, done.err, sep="")


if __name__ == "__main__":
    main()
