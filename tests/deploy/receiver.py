"""A webhook that prints what it is told, a line of JSON each, with the time when it came."""

import json
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["content-length"]))
        print(json.dumps({"received_s": time.time(), "alerts": json.loads(content)["alerts"]}))
        self.send_response(200)
        self.end_headers()


HTTPServer(("", 9000), Handler).serve_forever()
