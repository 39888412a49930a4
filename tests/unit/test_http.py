"""The way to a provider over HTTP: proxies, certificates, redirects, and how much of an answer is read."""

from __future__ import annotations

import ssl
import subprocess
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from pinnacle import ModelUnavailable, NoAnswer
from pinnacle.base import loop
from pinnacle.llm.certificates import tls_context
from pinnacle.llm.proxies import proxy_of
from pinnacle.llm.verdict import Verdict, verdict_on
from pinnacle.plugin import HttpClient, HttpError, Unreadable
from pinnacle.testing import FakeOpenAI

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUEST_METHOD")
ASKED = {"messages": [{"role": "user", "content": "abc"}]}


@pytest.fixture(autouse=True)
def _unset(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def ask(server, client=None, **options):
    return loop.run((client or HttpClient(**options)).post(f"{server.url}/chat/completions", ASKED))[0]


# -- proxies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "proxy"),
    [
        ("http://a.example/v1", "http://p:1"),
        ("https://a.example/v1", "http://q:2"),
        ("http://localhost/v1", "http://p:1"),
    ],
)
def test_each_scheme_has_its_proxy(monkeypatch, url, proxy):
    monkeypatch.setenv("http_proxy", "p:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://q:2")
    assert proxy_of(url) == proxy


def test_all_proxy_is_for_what_has_none_of_its_own(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    assert proxy_of("https://a.example") == "http://p:1"
    monkeypatch.setenv("HTTPS_PROXY", "http://q:2")
    assert (proxy_of("https://a.example"), proxy_of("http://a.example")) == ("http://q:2", "http://p:1")


@pytest.mark.parametrize(
    ("no_proxy", "url", "is_direct"),
    [
        ("*", "https://a.example", True),
        ("example.com", "https://example.com", True),
        ("example.com", "https://api.example.com", True),
        ("example.com", "https://notexample.com", False),
        (".example.com", "https://api.example.com", True),
        (".example.com", "https://example.com", False),
        ("*.example.com", "https://api.example.com", True),
        ("EXAMPLE.com", "https://Api.Example.COM", True),
        ("other, example.com ,", "https://example.com", True),
        ("localhost", "http://localhost:8000", True),
        ("localhost", "http://my.localhost", False),
        ("10.0.0.1", "http://10.0.0.1:8000", True),
        ("10.0.0.1", "http://10.0.0.12", False),
        ("10.0.0.0/8", "http://10.9.8.7", True),
        ("10.0.0.0/8", "http://11.0.0.1", False),
        ("10.0.0.0/8", "http://a.example", False),
        ("::1", "http://[::1]:8000", True),
        ("example.com:8080", "http://example.com:8080", True),
        ("example.com:8080", "http://example.com", False),
        ("example.com:443", "https://example.com", True),
        ("https://example.com", "https://example.com", True),
        ("https://example.com", "http://example.com", False),
        ("https://example.com", "https://api.example.com", False),
        ("", "https://example.com", False),
    ],
)
def test_no_proxy_names_what_is_asked_directly(monkeypatch, no_proxy, url, is_direct):
    monkeypatch.setenv("ALL_PROXY", "http://p:1")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_of(url) is None) == is_direct


def test_a_proxy_of_another_kind_is_told_and_stops_what_is_asked(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://p:1")
    with pytest.raises(ModelUnavailable, match="proxy of kind 'socks5'"):
        proxy_of("https://a.example")


def test_requests_go_through_the_proxy_with_its_user_and_others_directly(monkeypatch):
    with FakeOpenAI("by proxy") as proxy, FakeOpenAI("direct") as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.root.replace("http://", "http://me:pw@"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        answer, _ = loop.run(HttpClient().post("http://llm.corp.example/v1/chat/completions", ASKED))
        assert answer["choices"][0]["message"]["content"] == "by proxy"
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic bWU6cHc="
        assert ask(server)["choices"][0]["message"]["content"] == "direct"


def test_a_proxys_password_is_in_no_error(monkeypatch):
    with FakeOpenAI() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.root.replace("http://", "http://me:s%40cret0815@"))
        with pytest.raises(Exception, match="404") as raised:
            loop.run(HttpClient().post("https://llm.corp.example/v1", {}))
    assert "cret0815" not in "".join(traceback.format_exception(raised.value)) + repr(raised.value)


# -- certificates ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate that vouches for itself, and its key, in one file."""
    folder = tmp_path_factory.mktemp("pem")
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
            "-keyout", str(folder / "key"), "-out", str(folder / "certificate"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    both = folder / "both.pem"
    both.write_bytes((folder / "certificate").read_bytes() + (folder / "key").read_bytes())
    return str(both)


@pytest.fixture
def secure(pem):
    """The address of a server that asks for its clients' certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.load_verify_locations(pem)
    context.verify_mode = ssl.CERT_OPTIONAL

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            shown = b"true" if self.connection.getpeercert() else b"false"
            self.send_response(200)
            self.send_header("content-length", str(len(shown)))
            self.end_headers()
            self.wfile.write(shown)

        def log_message(self, *_):
            """Nothing is written to the terminal."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_):
            """A client that trusts nobody here hangs up."""

    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_is_trusted_by_the_files_that_say_so_and_no_other(secure, pem, monkeypatch):
    with pytest.raises(ModelUnavailable, match=r"certificate of 127\.0\.0\.1:\d+ is not trusted here.*ca_file="):
        loop.run(HttpClient().post(secure, {}))
    assert loop.run(HttpClient(ca_file=pem).post(secure, {}))[0] is False
    monkeypatch.setenv("SSL_CERT_FILE", pem)
    assert loop.run(HttpClient().post(secure, {}))[0] is False
    assert loop.run(HttpClient(certificate=pem).post(secure, {}))[0] is True


def test_files_that_are_no_certificates_are_told(tmp_path):
    (tmp_path / "empty").write_text("")
    for given in ((str(tmp_path / "none"), None), (None, str(tmp_path / "empty")), (None, ("a", "b"))):
        with pytest.raises(ModelUnavailable, match=r"can(not)? be (read|used)"):
            tls_context(*given)


# -- what is read ------------------------------------------------------------------------------------------


def test_a_redirect_is_not_followed_and_its_host_is_told():
    with FakeOpenAI(faults=["redirect"]) as server:
        with pytest.raises(HttpError, match="HTTP 307: it leads on to localhost, which is not followed") as raised:
            ask(server, headers={"authorization": "Bearer sk-secret"})
        assert (raised.value.status, server.received) == (307, 1)


@pytest.mark.parametrize("fault", ["bomb", None])
def test_an_answer_that_is_too_long_is_not_read_to_its_end(fault):
    with (
        FakeOpenAI("word " * 10_000, faults=[fault, None]) as server,
        pytest.raises(NoAnswer, match="longer than 40,000 bytes, unpacked; max_answer_bytes= allows more"),
    ):
        ask(server, max_answer_bytes=40_000)


def test_an_answer_within_the_bound_is_read_whole():
    with FakeOpenAI("word " * 10_000) as server:
        assert ask(server, max_answer_bytes=60_000)["choices"][0]["message"]["content"] == "word " * 10_000


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{", b"\xff", b""])
def test_a_body_that_no_reader_takes_is_unreadable(text):
    with Raw(text) as url, pytest.raises(Unreadable, match="the answer is no JSON"):
        loop.run(HttpClient().post(url, {}))


BROKEN = {
    "no status line": b"NOT HTTP\r\n\r\n",
    "no chunk's size": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
    "an unknown packing": b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
def test_what_is_no_http_is_an_outage_and_has_no_status(sent):
    with Raw(sent, is_whole=True) as url, pytest.raises(Unreadable, match="the answer is no HTTP") as raised:
        loop.run(HttpClient().post(url, {}))
    assert verdict_on(raised.value, has_served=True) is Verdict.OUTAGE


class Raw:
    """A server that answers with these bytes: a body, or the ``is_whole`` answer."""

    def __init__(self, body, *, is_whole=False):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers["content-length"]))
                if not is_whole:
                    self.send_response(200)
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                """Nothing is written to the terminal."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}/"

    def __exit__(self, *_):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
