"""Runs on a host without curl, by `python3 -c`: sends one request to $PREFLIGHT_URL.

Prints "python EXIT HTTP-STATUS", with curl's exit statuses, and the error on stderr.
"""

import os
import socket
import ssl
import sys
import urllib.error
import urllib.request


def ask(url, method):
    """The HTTP status of the answer to a request."""
    request = urllib.request.Request(url, method=method, headers={"Range": "bytes=0-0"})
    try:
        with urllib.request.urlopen(request, timeout=15) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def exit_status(reason):
    """curl's exit status for an error."""
    if isinstance(reason, ssl.SSLCertVerificationError):
        return 60
    if isinstance(reason, ssl.SSLError):
        return 35
    if isinstance(reason, socket.gaierror):
        return 6
    if isinstance(reason, (socket.timeout, TimeoutError)):
        return 28
    if isinstance(reason, ConnectionResetError):
        return 56
    return 7


def main(url):
    try:
        status = ask(url, "HEAD")
        if status in (400, 403, 404, 405, 501):
            status = ask(url, "GET")
        print("python 0 %03d" % status)
    except Exception as error:
        reason = getattr(error, "reason", error)
        print("python %d 000" % exit_status(reason))
        print(reason, file=sys.stderr)


main(os.environ["PREFLIGHT_URL"])
