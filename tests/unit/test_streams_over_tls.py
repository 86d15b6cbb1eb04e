# SPDX-License-Identifier: GPL-3.0-or-later
"""The way to encrypt a stream that the manual describes: nothing is on the wire in clear."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xenmig.sim import Domain, Host

MANUAL = Path(__file__).parents[2] / "docs" / "streams.md"
SECRET = b"PASSWORD-IN-GUEST-MEMORY"


def functions_of_the_manual() -> dict[str, Any]:
    """Runs the block that defines ``save_encrypted`` and ``restore_encrypted``."""
    blocks = re.findall(r"^```python\n(.*?)^```", MANUAL.read_text(), re.DOTALL | re.MULTILINE)
    (code,) = [block for block in blocks if "def save_encrypted" in block]
    names: dict[str, Any] = {}
    exec(compile(code, "streams.md", "exec"), names)  # noqa: S102 - it is ours
    return names


def contexts(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Makes a certificate, and returns the client's and the server's side of it."""
    key, certificate = directory / "key", directory / "certificate"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=localhost",
    ]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    client = ssl.create_default_context(cafile=str(certificate))
    client.check_hostname = False
    return client, server


def test_the_manuals_way_to_encrypt(host: Host, domain: Domain, empty_domain: Domain, tmp_path: Path) -> None:
    functions = functions_of_the_manual()
    client, server = contexts(tmp_path)
    domain.write_page(100, (SECRET * 100).ljust(4096, b"."))
    (sender, tap_in), (tap_out, receiver) = socket.socketpair(), socket.socketpair()
    wire = bytearray()

    def tap(source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(1 << 16):
            wire.extend(data)
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)

    def receive() -> None:
        functions["restore_encrypted"](
            empty_domain.domid, server.wrap_socket(receiver, server_side=True), host
        )

    taps = [threading.Thread(target=tap, args=ends) for ends in ((tap_in, tap_out), (tap_out, tap_in))]
    threads = [*taps, threading.Thread(target=receive)]
    for thread in threads:
        thread.start()
    functions["save_encrypted"](domain.domid, client.wrap_socket(sender), host)
    for thread in threads:
        thread.join()
    tap_in.close()
    tap_out.close()
    assert empty_domain.fingerprint() == domain.fingerprint()
    assert len(wire) > 64 << 20
    assert SECRET not in wire
