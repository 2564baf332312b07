"""A small HTTP proxy before a real server, which hands every answer on after a while."""

import http.server
import threading
import time
import urllib.error
import urllib.request


class SlowProxy:
    """A proxy on loopback.

    Attributes:
        url: that clients use.
        delay_s: before each answer; it may be changed at any time.
        asked: how many questions there were.
    """

    def __init__(self, target, delay_s):
        self.delay_s, self.asked = delay_s, 0
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self):
                proxy.asked += 1
                time.sleep(proxy.delay_s)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name: value for name, value in self.headers.items() if name != "Host"}
                asked = urllib.request.Request(target + self.path, body or None, headers, method=self.command)
                try:
                    reply = urllib.request.urlopen(asked, timeout=60)
                except urllib.error.HTTPError as error:
                    reply = error
                with reply:
                    content = reply.read()
                try:
                    self.send_response(reply.status)
                    self.send_header("Content-Type", reply.headers.get("Content-Type", "text/plain"))
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except OSError:
                    pass  # who asked does not wait any more

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = answer  # noqa: N815

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
