"""An S3 server in this process whose answers can be made to fail on the wire."""

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

FAULTS = ("unavailable", "dropped", "lost", "slow", "cut")
"""503; a connection that ends; an answer that is lost, after the request was carried out; a late one; half of one."""
SLOW_S = 0.1
_SIGNED = "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=a"
_UNAVAILABLE = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class FaultyApplication:
    """WSGI application that spoils some answers of another one.

    `choose` gets the number of the request, from 1, and its method and path, and returns a fault or None.
    """

    def __init__(self, application: Any) -> None:
        self._application = application
        self._numbers = itertools.count(1)
        self.choose: Callable[[int, str, str], str | None] = lambda number, method, path: None
        self.n_requests = self.n_faults = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        with self._lock:
            self.n_requests = number = next(self._numbers)
            fault = self.choose(number, environ["REQUEST_METHOD"], environ["PATH_INFO"])
            self.n_faults += fault is not None
        if not environ.get("HTTP_AUTHORIZATION", "").startswith("AWS4"):  # of gs://
            environ["HTTP_AUTHORIZATION"] = _SIGNED
        if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":  # what gs:// says for `only if there is none`
            environ["HTTP_IF_NONE_MATCH"] = "*"
        if fault == "unavailable":
            _drain(environ)
            start_response("503 Slow Down", [("Content-Type", "text/xml"), ("Content-Length", str(len(_UNAVAILABLE)))])
            return [_UNAVAILABLE]
        if fault == "forbidden":
            _drain(environ)
            text = f"<Error><Code>AccessDenied</Code><Sent>{environ.get('HTTP_AUTHORIZATION')}</Sent></Error>".encode()
            start_response("403 Forbidden", [("Content-Type", "text/xml"), ("Content-Length", str(len(text)))])
            return [text]
        if fault == "dropped":
            self._drop(environ)
        if fault == "slow":
            time.sleep(SLOW_S)
        answer = self._application(environ, start_response)
        if fault in ("lost", "cut"):
            whole = b"".join(answer)
            if fault == "lost" or len(whole) < 2 or environ["REQUEST_METHOD"] == "HEAD":
                self._drop(environ)
            return _half(whole, lambda: self._drop(environ))
        return answer

    @staticmethod
    def _drop(environ: dict[str, Any]) -> None:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError("on purpose")


class S3Server:
    """The server, on a free port of this machine; `faults` says what fails."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        self.faults = FaultyApplication(DomainDispatcherApplication(create_backend_app))
        self._server = make_server("127.0.0.1", 0, self.faults, threaded=True, request_handler=MotoRequestHandler)
        self.bucket = f"runs{self._server.port}"
        self.url = f"http://127.0.0.1:{self._server.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def every_third(number: int, method: str, path: str) -> str | None:
    """Each kind of fault in turn, on every third request."""
    return FAULTS[number // 3 % len(FAULTS)] if number % 3 == 0 else None


def _drain(environ: dict[str, Any]) -> None:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))


def _half(whole: bytes, drop: Callable[[], None]) -> Iterable[bytes]:
    yield whole[: len(whole) // 2]
    drop()
