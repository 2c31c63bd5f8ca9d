"""A real SSH server on loopback, which shows a key and lets nobody in."""

import socket
import sys
import threading

import paramiko


def serve(key_file: str) -> None:
    """Serve with a host key until killed; the first line printed is the port."""
    key = paramiko.ECDSAKey.from_private_key_file(key_file)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_answer, args=(connection, key), daemon=True).start()


def _answer(connection: socket.socket, key: paramiko.PKey) -> None:
    transport = paramiko.Transport(connection)
    transport.add_server_key(key)
    try:
        transport.start_server(server=paramiko.ServerInterface())
        transport.join(20)
    except (EOFError, OSError, paramiko.SSHException):
        pass


if __name__ == "__main__":
    serve(sys.argv[1])
