"""Runs on a host: asks replicas by their own ports whether they are ready, all at once.

Arguments: a name, an address, a port and a path for each; the address is the head's of a replica
over several hosts. Prints a line for each that answers in time: its name
and the HTTP status, 0 where nobody takes the connection.
"""

import http.client
import os
import sys
import threading

LIMIT_S = 3


def ask(name, address, port, path, found):
    """Note what a replica answers; an answer that is no HTTP says nothing."""
    try:
        connection = http.client.HTTPConnection(address, int(port), timeout=LIMIT_S)
        connection.request("GET", path)
        found[name] = connection.getresponse().status
    except ConnectionError:
        found[name] = 0
    except (OSError, http.client.HTTPException, ValueError):
        pass


def main():
    """Ask all, wait as long as the limit says, and print what came until then."""
    words, found = sys.argv[1:], {}
    replicas = [words[first : first + 4] for first in range(0, len(words), 4)]
    done = threading.Semaphore(0)

    def one(name, address, port, path):
        ask(name, address, port, path, found)
        done.release()

    for replica in replicas:
        threading.Thread(target=one, args=replica, daemon=True).start()
    # A socket's own timeout starts anew with each byte.
    timer = threading.Timer(LIMIT_S, lambda: [done.release() for _ in replicas])
    timer.daemon = True
    timer.start()
    for _ in replicas:
        done.acquire()
    for name, status in sorted(dict(found).items()):
        print(name, status)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
