"""A program that brings its own arguments and serves with several workers.

python examples/launcher.py --greeting "Good evening" --port 8000
"""

import argparse
import sys

from unlimitedws import Connection, Handlers, Supervisor, UnlimitedwsError


def handlers_that_greet(greeting: str) -> Handlers:
    handlers = Handlers()

    @handlers.on_connect
    def greet(conn: Connection) -> None:
        conn.send(f"{greeting}, you are connection {conn.id}")

    @handlers.on_message
    def echo(conn: Connection, message: str | bytes) -> None:
        conn.send(message)

    return handlers


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--greeting", default="Hello")
    arguments.add_argument("--port", type=int, default=8000)
    arguments.add_argument("--admin-port", type=int, default=9000)
    options = arguments.parse_args()
    try:
        # Every setting is a keyword; docs/reference/settings.md lists them. Blocks until SIGTERM or Ctrl-C.
        Supervisor(handlers_that_greet(options.greeting), port=options.port, admin_port=options.admin_port, workers=2).run()
    except UnlimitedwsError as error:  # a port in use, say: one line instead of a traceback
        sys.exit(f"launcher: {error}")


if __name__ == "__main__":
    main()
