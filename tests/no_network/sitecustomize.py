"""Refuse the network. Python imports this at its start where this folder is on PYTHONPATH.

Connections within this machine stay open. Jupyter's own messages do not pass through Python's sockets.
The methods are replaced on the class itself, because ssl and asyncio hold their own references to it.
"""

import errno
import ipaddress
import socket

WORDS = "the notebook runner has cut the network"
INTERNET = (socket.AF_INET, socket.AF_INET6)
real = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}
real_getaddrinfo = socket.getaddrinfo


def is_local(host):
    if host in (None, "", "localhost", socket.gethostname()):
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


def check(sock, address):
    if sock.family in INTERNET and not is_local(address[0]):
        raise OSError(errno.ENETUNREACH, f"{WORDS}: {address}")


def connect(self, address):
    check(self, address)
    return real["connect"](self, address)


def connect_ex(self, address):
    try:
        check(self, address)
    except OSError as error:
        return error.errno
    return real["connect_ex"](self, address)


def sendto(self, data, *rest):
    check(self, rest[-1])
    return real["sendto"](self, data, *rest)


def getaddrinfo(host, *rest, **named):
    name = host.decode() if isinstance(host, bytes) else host
    if not is_local(name):
        raise socket.gaierror(socket.EAI_NONAME, f"{WORDS}: {name}")
    return real_getaddrinfo(host, *rest, **named)


socket.socket.connect = connect
socket.socket.connect_ex = connect_ex
socket.socket.sendto = sendto
socket.getaddrinfo = getaddrinfo
