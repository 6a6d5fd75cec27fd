"""Listen on the page's side: what the kernel answers, what the page complains of, where it wants to go."""

import json
import re
import struct
from urllib.parse import urlsplit

COLOURS = re.compile(r"\x1b\[[0-9;]*m")
TRACEBACK = "Traceback (most recent call last)"
# What a page says although nothing is wrong. Each needs its reason.
NOISE = [
    # Notebook 7.6 at its start: its keyboard shortcuts look at plugins whose settings have not been loaded yet.
    r"Cannot read properties of undefined \(reading 'schema'\)",
]


class Ears:
    """Keeps every trouble of a page in `troubles`, as text.

    The callbacks of widgets swallow their exceptions: the cell that made them has long succeeded, and JupyterLab shows
    nothing. So every message of the kernel is read on its way to the page.
    """

    def __init__(self, page):
        self.troubles = []
        page.on("pageerror", lambda error: self.said(f"error on the page: {error}"))
        page.on("console", self.console)
        page.on("request", lambda request: self.request(request.url))
        page.on("websocket", self.websocket)

    def note(self, trouble):
        if trouble not in self.troubles:
            self.troubles.append(trouble)

    def console(self, message):
        if message.type == "error":
            self.said(f"console: {message.text} ({message.location.get('url', '')})")

    def said(self, words):
        if not any(re.search(noise, words) for noise in NOISE):
            self.note(words)

    def request(self, url):
        parts = urlsplit(url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname != "127.0.0.1":
            self.note(f"the page wants the network: {url[:200]}")

    def websocket(self, socket):
        self.request(socket.url)
        socket.on("framereceived", self.frame)

    def frame(self, payload):
        try:
            kind, content = read_message(payload)
        except (ValueError, KeyError, IndexError, struct.error):
            return    # not a kernel's: the server's own news, as a rule
        if kind == "error":
            self.note(f"kernel: {words(content)}")
        elif kind == "stream" and content["name"] == "stderr" and TRACEBACK in content["text"]:
            self.note(f"kernel's stderr: {content['text']}")
        elif kind.startswith("comm"):
            for output in content.get("data", {}).get("state", {}).get("outputs") or []:
                if output.get("output_type") == "error":
                    self.note(f"in an output widget: {words(output)}")


def words(error):
    text = "\n".join(error.get("traceback", [])) or f"{error.get('ename')}: {error.get('evalue')}"
    return COLOURS.sub("", text).strip()


def read_message(payload):
    """A kernel's message, as the pair (type, content).

    Text is one JSON object. Bytes are v1.kernel.websocket.jupyter.org: the count of offsets, the offsets (64 bits each,
    little-endian), and between them the channel, header, parent's header, metadata, content and buffers.
    """
    if isinstance(payload, str):
        message = json.loads(payload)
        return message["header"]["msg_type"], message["content"]
    count, = struct.unpack_from("<Q", payload)
    if not 6 <= count <= 1000:
        raise ValueError("no message of a kernel")
    at = struct.unpack_from(f"<{count}Q", payload, 8)
    return json.loads(payload[at[1]:at[2]])["msg_type"], json.loads(payload[at[4]:at[5]])
