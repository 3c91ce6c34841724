"""The command: loads the runs, then serves the page until it is stopped."""

import argparse
import errno
import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from langevin.errors import UserError, missing_package
from langevin.visible import visible_lines


def bound(host: str, port: int) -> socket.socket:
    """A socket bound to an address, which nothing can connect to yet.

    Args:
        host: a name or an address of this machine.
        port: 0 to 65535; 0: any that is free.

    Raises:
        UserError: when the port is in use, or there is no such address.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"--port {port}: allowed: 0 to 65535; 0 takes any that is free")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of a server that has just ended is free
        opened.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(f"--port {port} is in use; choose another, or --port 0 for any that is free") from error
        at_fault = f"--port {port}" if error.errno == errno.EACCES else f"--host {host}"
        raise UserError(f"{at_fault}: cannot be served from ({error.strerror})") from error
    except UnicodeError as error:  # of a name that can be none
        raise UserError(f"--host {host!r}: is no name of a machine") from error
    return opened


def is_local(host: str) -> bool:
    """Whether a bound address can only be reached from this machine."""
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def explore(places: Sequence[Path], host: str, port: int, trust: Sequence[str]) -> None:
    """Serve the page until a signal comes.

    Raises:
        UserError: when a run cannot be loaded, or the address cannot be served from.
        KeyboardInterrupt: after Ctrl-C or SIGTERM.
    """
    if len(places) > 2:
        raise UserError(f"RUN: {len(places)} are given; allowed: one, or two to compare")
    if find_spec("gradio") is None:
        raise missing_package("the explorer", "gradio", "ui")
    with bound(host, port) as opened:
        from langevin.api import load
        from langevin.ui.explorer import Explorer

        explorer = Explorer([load(place, trust) for place in places])

        from langevin.ui.page import page, serve

        address, number = opened.getsockname()[:2]
        if not is_local(address):
            reached = f"anyone who can reach port {number} of this machine can use the page"
            print(f"warning: --host {host}: {reached}; there is no password", file=sys.stderr)
        shown = f"[{address}]" if ":" in address else address
        blocks = page(explorer)
        opened.listen()
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        print(f"http://{shown}:{number} (Ctrl-C stops it)", flush=True)
        serve(blocks, opened)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and serve the page."""
    parser = argparse.ArgumentParser(
        "langevin ui", description="Opens a page on this machine that samples from one or two trained runs."
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run's folder or a .ckpt file; at most two")
    parser.add_argument("--host", default="127.0.0.1", help="the address to serve from (127.0.0.1: this machine alone)")
    parser.add_argument("--port", default=7860, type=int, help="0: any that is free (7860)")
    parser.add_argument(
        "--trust",
        action="extend",
        nargs="+",
        default=[],
        metavar="PACKAGE",
        help="packages, modules or classes that the runs' configs may use besides Langevin's own; their code is run",
    )
    given = parser.parse_args(arguments)
    try:
        explore(given.runs, given.host, given.port, given.trust)
    except UserError as error:
        parser.exit(1, visible_lines(f"error: {error}\n"))
    except KeyboardInterrupt:
        print("stopped", flush=True)
        sys.stderr.flush()
        os._exit(0)  # Python itself would wait for a thread that samples; nothing is lost with it


if __name__ == "__main__":
    main()
