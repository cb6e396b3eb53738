"""Which page of the reference shows what of the package. A test holds it to the names that the package exports."""

from __future__ import annotations

from docs.api import ApiPage, Entry

PAGES = {
    "handlers.md": ApiPage(
        "Handlers",
        """ What an app registers. A hook is a plain function, called inline; an `async def`, which
runs on the worker's loop; or marked by `@blocking`, and runs in the worker's pool of threads (`on_handover` is always plain). While an
async or blocking `on_connect` or `on_message` is pending, its connection is not read. A hook that raises closes its connection with 1011;
`on_start` that raises keeps the worker from starting.

How to: [decide who may connect](../how-to/decide-who-may-connect.md), [broadcast and keep rooms](../how-to/broadcast-and-keep-rooms.md),
[use a database](../how-to/use-a-database.md), [call what blocks](../how-to/call-what-blocks.md), [answer plain
HTTP](../how-to/answer-plain-http.md).

The app is one `Handlers` for every path, or a mapping of exact paths to Handlers: `{"/chat": chat, "/echo": echo}`.
""",
        (Entry("unlimitedws.handlers", "Handlers"), Entry("unlimitedws.functions", "blocking")),
    ),
    "connection.md": ApiPage(
        "Connection",
        "What a handler is handed. How to: [cope with slow clients](../how-to/cope-with-slow-clients.md).",
        (Entry("unlimitedws.connection", "Connection", is_made=False), Entry("unlimitedws.wire.closing", "Close")),
    ),
    "worker.md": ApiPage(
        "Worker",
        """
What `on_start` is handed: the process that the app runs in, and its connections. An app makes none. Its methods may be called from any
thread. How to: [broadcast and keep rooms](../how-to/broadcast-and-keep-rooms.md).

Besides the members below: `worker.serial`, the number of this worker in the server's life; `worker.engine_name`, `"native"` or
`"portable"`; `worker.config`, the [settings](settings.md) in force; `worker.loop`, its event loop.
""",
        (Entry("unlimitedws.worker", "Worker", ("broadcast", "expire_at", "connections"), is_made=False),),
    ),
    "server.md": ApiPage(
        "Server and Supervisor",
        """
Two ways to serve from a program of one's own: one worker in this process (`Server`), or the whole server with its worker processes
(`Supervisor`). From the command line it is [`unlimitedws serve`](command-line.md#serve). How to:
[test an app](../how-to/test-an-app.md), [run from a program of your own](../how-to/run-from-a-program.md).

Both take every [setting](settings.md) as a keyword, or a `Config` of them: `Config(port=8080, workers=4)`.
""",
        (
            Entry("unlimitedws.server", "Server"),
            Entry("unlimitedws.supervisor.supervisor", "Supervisor", ("run",)),
            Entry("unlimitedws.config", "Config", (), is_made=False),
        ),
    ),
    "request.md": ApiPage(
        "Request, Accept, Reject",
        """
What `on_upgrade` is handed, and what it returns. How to: [decide who may connect](../how-to/decide-who-may-connect.md).

Besides the members below, `request.remote_address` is (host, port) of the client, or the text of a Unix peer; behind a trusted proxy what
that one said. `request.head` has the bytes as they came.
""",
        (
            Entry("unlimitedws.request", "Request", is_made=False),
            Entry("unlimitedws.headers", "Headers", ("items_of", "get_all"), "Request.headers", is_made=False),
            Entry("unlimitedws.headers", "Query", ("get_all",), "Request.query", is_made=False),
            Entry("unlimitedws.request", "Tls", None, "Request.tls", is_made=False),
            Entry("unlimitedws.verdict", "Accept", ()),
            Entry("unlimitedws.verdict", "Reject", ()),
            Entry("unlimitedws.cookies", "Cookie", ()),
        ),
    ),
    "http.md": ApiPage(
        "HttpRequest and Response",
        "What a route of plain HTTP is handed, and what it may return. An `HttpRequest` is a [`Request`](request.md) with a body:\n"
        "it has the same headers, cookies and query. How to: [answer plain HTTP](../how-to/answer-plain-http.md).",
        (Entry("unlimitedws.http.request", "HttpRequest", is_made=False), Entry("unlimitedws.http.response", "Response", ())),
    ),
    "checks.md": ApiPage(
        "Checks",
        """
Ready-made functions for `on_upgrade`, in `unlimitedws.checks`. How to: [let in your own pages](../how-to/let-in-your-own-pages.md),
[sign in with a cookie](../how-to/sign-in-with-a-cookie.md), [accept JSON Web Tokens](../how-to/accept-json-web-tokens.md),
[ask for a password](../how-to/ask-for-a-password.md).
""",
        (
            Entry("unlimitedws.checks.composing", "every", None, "checks.every"),
            Entry("unlimitedws.checks.origins", "origin", None, "checks.origin"),
            Entry("unlimitedws.checks.cookie", "signed_cookie", None, "checks.signed_cookie"),
            Entry("unlimitedws.signed_cookies", "SignedCookies"),
            Entry("unlimitedws.checks.tokens", "JWT", None, "checks.jwt"),
            Entry("unlimitedws.checks.basic", "basic_auth", None, "checks.basic_auth"),
        ),
    ),
}
"""File name to page. Errors and causes have pages of their own (`errors.md`, `closing.md`)."""


def pages() -> dict[str, str]:
    """File name to text of each page."""
    return {name: page.text() for name, page in PAGES.items()}
