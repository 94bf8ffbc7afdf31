"""A Climate Data Store on this machine: the endpoints, states and error bodies that cdsapi 0.7 meets.

Bodies follow the processing service of the Copernicus data stores (OGC API Processes with RFC 7807 errors). Faults are
handed out in order, one a request sent; a request without a fault is answered.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod

KEY = "01234567-89ab-cdef-0123-456789abcdef"

_STAMP = "2024-09-26T10:00:00.000000"
_HTML = b"<!DOCTYPE html><html><body>Service unavailable: maintenance</body></html>"
_ON_SENDING = {
    "licence": (
        403,
        "permission denied",
        "required licences not accepted",
        "Not all the required licences have been accepted; please visit https://cds.climate.copernicus.eu/datasets/"
        "DATASET?tab=download#manage-licences to accept the required licence(s).",
    ),
    "cost": (
        403,
        "permission denied",
        "cost limits exceeded",
        "Your request is too large, please reduce your selection.",
    ),
    "invalid": (
        400,
        "invalid request",
        "invalid request",
        "Request has not produced a valid combination of values, please check your selection.",
    ),
    "unpublished": (
        400,
        "invalid request",
        "invalid request",
        "None of the data you have requested is available yet, please revise the period requested. The latest date "
        "available for this dataset is: 2024-09-20 23:00",
    ),
    "rate": (429, "rate limit exceeded", "rate limit exceeded", "Rate limit exceeded. Please wait 30 seconds."),
    "account": (403, "permission denied", "permission denied", "Your account has been suspended."),
    "unavailable": (503, "service unavailable", "service unavailable", "The system is under maintenance."),
    "broken": (500, "internal server error", "internal server error", None),
}
_ON_WORKING = {
    "failed": "The job has failed: disk failure on node 7",
    "rejected": "Number of API queued requests for this dataset is temporarily limited. Please configure your scripts "
    "accordingly",
    "no data": "MarsNoDataError: MARS returned no data, please check your selection.",
}


def cost_of(inputs: dict) -> int:
    """What the store reckons a request costs: the product of the lengths of its lists; `area` does not count."""
    return prod(len(value) for name, value in inputs.items() if isinstance(value, list) and name != "area")


class CdsServer(ThreadingHTTPServer):
    """Answers requests with `answer(inputs) -> bytes`; as a context, it runs in threads of this process."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[dict], bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.faults: deque[str] = deque()
        self.sent: list[dict] = []
        self.moments: list[float] = []
        """Seconds at which they were sent."""
        self.jobs: dict[str, dict] = {}
        self.calls = 0
        self.under_way, self.most_under_way = 0, 0
        self.seconds = 0.0
        """That a job takes."""
        self.most_cost: int | None = None
        """Requests that cost more are refused, as the store does it: a list as long as two costs twice."""
        self.retry_after: str | None = None
        """What the header of a 429 says."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/api"

    def __enter__(self) -> CdsServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: CdsServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits 40 ms

    def log_message(self, *_) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_HEAD = do_POST = do_GET

    def _route(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0].removeprefix("/api")
        parts = path.strip("/").split("/")
        with self.server.lock:
            self.server.calls += 1
        if parts[0] == "store":
            return self._asset(parts[1])
        if parts == ["catalogue", "v1", "messages"]:
            return self._json(200, {"messages": []})
        if self.headers.get("PRIVATE-TOKEN") != KEY:
            return self._error(401, "permission denied", "permission denied", "Authentication failed")
        if parts[:2] == ["profiles", "v1"]:
            return self._json(200, {"id": 7, "role": "user"})
        if parts[2] == "processes":
            return self._send(parts[3], body) if parts[-1] == "execution" else self._json(200, {"id": parts[3]})
        return self._results(parts[3]) if parts[-1] == "results" else self._job(parts[3], 200)

    def _send(self, dataset: str, body: bytes) -> None:
        inputs, server = json.loads(body)["inputs"], self.server
        with server.lock:
            server.sent.append({"dataset": dataset, **inputs})
            server.moments.append(time.monotonic())
            fault = server.faults.popleft() if server.faults else ""
            if server.most_cost is not None and cost_of(inputs) > server.most_cost:
                fault = "cost"
            number = f"job-{len(server.sent)}"
        if fault == "lost":
            self.close_connection = True
            return None
        if fault in _ON_SENDING:
            status, kind, title, detail = _ON_SENDING[fault]
            headers = {"Retry-After": server.retry_after} if fault == "rate" and server.retry_after else {}
            return self._error(status, kind, title, detail and detail.replace("DATASET", dataset), headers)
        content = _HTML if fault == "html" else b"" if fault in _ON_WORKING else server.answer(inputs)
        size = len(content)
        content = content[: size * 2 // 3 - 5] if fault in ("truncated", "short") else content
        with server.lock:
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
            server.jobs[number] = {
                "content": content, "size": size if fault == "truncated" else len(content),
                "fault": fault, "dataset": dataset, "done": time.monotonic() + server.seconds,
            }  # fmt: skip
        return self._job(number, 201)

    def _job(self, number: str, status: int) -> None:
        job = self.server.jobs[number]
        if status == 200:
            time.sleep(max(0.0, job["done"] - time.monotonic()))
        ended = "rejected" if job["fault"] == "rejected" else "failed" if job["fault"] in _ON_WORKING else "successful"
        address = f"{self.server.url}/retrieve/v1/jobs/{number}"
        reply = {
            "processID": job["dataset"], "type": "process", "jobID": number, "created": _STAMP, "updated": _STAMP,
            "status": "accepted" if status == 201 else ended, "metadata": {"origin": "api"},
            "links": [
                {"href": address, "rel": "monitor", "type": "application/json", "title": "job status info"},
                {"href": f"{address}/results", "rel": "results"},
            ],
        }  # fmt: skip
        self._json(status, reply)

    def _results(self, number: str) -> None:
        job = self.server.jobs[number]
        if job["fault"] in _ON_WORKING:
            with self.server.lock:
                self.server.under_way -= 1
            body = {
                "type": "job results failed", "title": "The job has failed.", "status": 400,
                "instance": f"{self.server.url}/retrieve/v1/jobs/{number}/results", "trace_id": "ca3e7170",
                "traceback": _ON_WORKING[job["fault"]],
            }  # fmt: skip
            return self._json(400, body)
        value = {
            "type": "application/x-grib", "href": f"{self.server.url}/store/{number}", "file:size": job["size"],
            "file:checksum": "0", "file:local_path": f"s3://cci2-prod-cache-1/{number}.grib",
        }  # fmt: skip
        return self._json(200, {"asset": {"value": value}})

    def _asset(self, number: str) -> None:
        content = self.server.jobs[number]["content"]
        if self.command == "GET":
            with self.server.lock:
                self.server.under_way -= 1
        kind = "text/html" if content is _HTML else "application/x-grib"
        self._reply(200, content, kind, {"Accept-Ranges": "none"})

    def _error(self, status: int, kind: str, title: str, detail: str | None, headers: dict | None = None) -> None:
        body = {"type": kind, "title": title, "status": status, "detail": detail, "trace_id": "ca3e7170"}
        self._json(status, {key: value for key, value in body.items() if value is not None}, headers)

    def _json(self, status: int, body: dict, headers: dict | None = None) -> None:
        self._reply(status, json.dumps(body).encode(), "application/json", headers or {})

    def _reply(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
