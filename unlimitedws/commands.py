"""The subcommands: a flag for each setting, and what runs each command.

Everything about a setting comes from `config.settings()`; a flag's text is read by `sources`, so that every
source says the same of a bad value.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from unlimitedws.config import C_INT, DEFAULTS, Config, flag, kind, plain, settings, variable
from unlimitedws.errors import ConfigError, UnknownSetting
from unlimitedws.output import show
from unlimitedws.sources import APP_VARIABLE, CONFIG_VARIABLE, load, parse_float, parse_int

ADMIN = f"{DEFAULTS['admin_host']}:{DEFAULTS['admin_port']}"


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand: its line in the help, its arguments, and what runs it and gives the exit code."""

    help: str
    usage: str
    arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def run(arguments: Sequence[str]) -> int:
    """Runs one command line and gives its exit code. Raises UnlimitedwsError."""
    options, unknown = parser().parse_known_args(arguments)
    if unknown:
        refuse(unknown, options.command)
    return COMMANDS[options.command].run(options)


def serving(arguments: Sequence[str]) -> Sequence[str]:
    """As if `serve` had been typed, unless a command comes first."""
    return arguments if arguments and arguments[0] in (*COMMANDS, "--version") else ["serve", *arguments]


def refuse(unknown: Sequence[str], command: str) -> NoReturn:
    """Raises for arguments that the command has not."""
    flags = flags_of(COMMANDS[command])
    for argument in unknown:
        if argument in flags:
            raise ConfigError(f"command line: {argument} comes behind --, where nothing is a flag")
        if argument.startswith("-"):
            raise UnknownSetting(argument.partition("=")[0], "command line", flags, f"unlimitedws {command} --help")
    raise ConfigError(f"{unknown[0]} is one argument too many; see unlimitedws {command} --help")


def flags_of(command: Command) -> list[str]:
    """Its flags, without the --no- twin of a switch."""
    alone = argparse.ArgumentParser(add_help=False)
    command.arguments(alone)
    return [name for action in alone._actions for name in action.option_strings[:1]]


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="unlimitedws", description="A WebSocket server for as many connections as the kernel can hold.")
    top.add_argument("--version", action=Version, nargs=0, help="show the version and end")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        into = commands.add_parser(name, help=command.help, description=command.help, usage=command.usage, allow_abbrev=False)
        command.arguments(into)
    return top


class Parser(argparse.ArgumentParser):
    """argparse, with its errors in the form that all errors of this command have."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")

    def _print_message(self, message: str, file: object = None) -> None:
        """The help: argparse would not notice that it cannot be written."""
        show(message, end="")


class Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from unlimitedws import __version__

        show(f"unlimitedws {__version__}")
        parser.exit()


def serve_arguments(into: argparse.ArgumentParser) -> None:
    into.epilog = (
        f"Every setting is also a variable ({variable('port')}) and a key of the file that --config names (port = 8000). "
        f"Later sources win: default, file, variable, flag."
    )
    into.add_argument(
        "app",
        nargs="?",
        metavar="APP",
        help=f"module:attribute of the app's Handlers, or {APP_VARIABLE}; the attribute defaults to handlers",
    )
    add_settings(into)
    into.add_argument("--print-config", action="store_true", help="show every setting, its value and where it came from, and end")


def add_settings(into: argparse.ArgumentParser) -> None:
    """A flag for each setting, and the file that may have them."""
    into.add_argument("--config", metavar="FILE", help=f"TOML file with settings, or {CONFIG_VARIABLE}")
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, about in settings().items():
        group = groups.get(about.group) or into.add_argument_group(about.group)
        groups[about.group] = group
        add_flag(group, name)


def add_flag(group: argparse._ActionsContainer, name: str) -> None:
    """The flag of one setting, as text: `sources.parse` reads it, so that every source says the same of a bad value."""
    if kind(name) is bool:
        group.add_argument(flag(name), action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=help_of(name))
    else:
        group.add_argument(flag(name), metavar=metavar(name), default=argparse.SUPPRESS, help=help_of(name))


def help_of(name: str) -> str:
    about, default = settings()[name], shown(DEFAULTS[name])
    zero = f"; 0: {about.zero}" if about.zero else ""
    empty = f"; empty: {about.empty}" if about.empty else ""
    return f"{about.help}{zero}{empty} (default: {default or 'empty'})".replace("%", "%%")


def metavar(name: str) -> str:
    about = settings()[name]
    if about.choices:
        return "{" + ",".join(about.choices) + "}"
    if kind(name) is str:
        return "TEXT"
    if name.endswith("_per_s"):
        return "N"
    return {"s": "SECONDS", "bytes": "BYTES"}.get(name.rpartition("_")[2], "N")


def shown(value: object) -> str:
    """A value as the operator would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return plain(value) if isinstance(value, int | float) else str(value)


def settings_given(options: argparse.Namespace) -> tuple[Config, dict[str, str]]:
    """The settings of a command line with its file and variables, and where each is from. Raises ConfigError."""
    return load({name: value for name, value in vars(options).items() if name in DEFAULTS}, os.environ, options.config)


def serve(options: argparse.Namespace) -> int:
    """Runs the supervisor until it is told to stop."""
    config, sources = settings_given(options)
    if options.print_config:
        show(table(config, sources))
        return 0
    app = options.app or os.environ.get(APP_VARIABLE)
    if not app:
        raise ConfigError(f"which app? Name it as module:attribute (unlimitedws serve app:handlers), or set {APP_VARIABLE}")
    from unlimitedws.supervisor import Supervisor

    Supervisor(app, config, sources=sources).run()
    return 0


def table(config: Config, sources: Mapping[str, str]) -> str:
    """What --print-config shows: setting, value, where it came from."""
    rows = [("setting", "value", "from"), *((name, shown(getattr(config, name)), sources[name]) for name in DEFAULTS)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    return "\n".join(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}" for name, value, source in rows)


def top_arguments(into: argparse.ArgumentParser) -> None:
    into.add_argument("address", nargs="?", default=ADMIN, metavar="ADDRESS", help=f"the admin port of the server (default: {ADMIN})")
    into.add_argument("--every-s", default="1", metavar="SECONDS", help="time between two looks (default: 1)")
    into.add_argument("--once", action="store_true", help="print one look, without rates, and end")


def top(options: argparse.Namespace) -> int:
    """Shows a server that runs until it is interrupted."""
    every_s = parse_float(options.every_s)
    if every_s is None or not 0.1 <= every_s <= 3600:
        raise ConfigError(f"--every-s cannot be {options.every_s!r}; accepted: a number from 0.1 to 3600")
    from unlimitedws import top

    return top.run(options.address, every_s, once=options.once)


def ctl_arguments(into: argparse.ArgumentParser) -> None:
    into.epilog = "docs/reference/ctl.md says what each of them does."
    into.add_argument("verb", metavar="VERB", help="status, reload, upgrade, workers N, rebalance, stop")
    into.add_argument("number", nargs="?", metavar="N", help="of workers")
    into.add_argument("--no-wait", action="store_true", help="end as soon as it has begun")
    into.add_argument("--json", action="store_true", help="print the server's answer as it is, for scripts")
    into.add_argument("--config", metavar="FILE", help=f"TOML file of the server's settings, or {CONFIG_VARIABLE}")
    add_flag(into, "control_socket")


def ctl(options: argparse.Namespace) -> int:
    """Asks a server that runs."""
    given = {"control_socket": options.control_socket} if "control_socket" in options else {}
    config, _ = load(given, os.environ, options.config)
    from unlimitedws import ctl

    return ctl.run(options.verb, options.number, control_socket=config.control_socket, wait=not options.no_wait, as_json=options.json)


def doctor_arguments(into: argparse.ArgumentParser) -> None:
    into.epilog = "It takes the settings of `serve`, from the same places, and judges what would be served. Exit code 1: not enough."
    into.add_argument("app", nargs="?", metavar="APP", help="taken, so that the arguments of `serve` fit, and not looked at")
    into.add_argument("--connections", metavar="N", help="whether so many fit, and what to change if not")
    into.add_argument("--json", action="store_true", help="a JSON object for programs (docs/reference/doctor.md)")
    add_settings(into)


def doctor(options: argparse.Namespace) -> int:
    """Judges this machine; 1 where the connections asked for do not fit."""
    wanted = None if options.connections is None else parse_int(options.connections, size=False)
    if options.connections is not None and (wanted is None or not 1 <= wanted <= C_INT):
        raise ConfigError(f"--connections cannot be {options.connections!r}; accepted: a whole number from 1 to {C_INT}")
    config, _ = settings_given(options)
    from unlimitedws import doctor
    from unlimitedws.supervisor.cpus import usable_cpus

    return doctor.run(config, wanted, cpus=usable_cpus(), as_json=options.json)


def bench_arguments(into: argparse.ArgumentParser) -> None:
    from unlimitedws.bench.options import ONE_AFTER_THE_OTHER, add_flags

    into.formatter_class = argparse.RawDescriptionHelpFormatter
    into.epilog = "modes:\n" + "\n".join(f"  {mode:10} {text}" for mode, text in ONE_AFTER_THE_OTHER.items())
    into.add_argument(
        "urls", nargs="*", metavar="URL", help="ws://host:port/path or wss://...; several of the same server spread the load over its ports"
    )
    into.add_argument("--compare", nargs=2, metavar="FILE", help="compare two runs that --json wrote, and load nothing")
    add_flags(into)


def bench(options: argparse.Namespace) -> int:
    """Loads a server and shows what it held."""
    from unlimitedws.bench import command

    return command.run(options)


COMMANDS = {
    "serve": Command(
        "serve an app with one worker process for each CPU", "unlimitedws serve APP [--setting VALUE ...]", serve_arguments, serve
    ),
    "ctl": Command("tell a server that runs what to do", "unlimitedws ctl VERB [N] [--control-socket PATH]", ctl_arguments, ctl),
    "doctor": Command(
        "say how many connections this machine holds, what ends it first, and what to change",
        "unlimitedws doctor [--connections N] [--json] [--setting VALUE ...]",
        doctor_arguments,
        doctor,
    ),
    "bench": Command(
        "load a WebSocket server, ours or another",
        "unlimitedws bench URL [URL ...] [--mode MODE] [--option VALUE ...]",
        bench_arguments,
        bench,
    ),
    "top": Command("show in the terminal what a server does, live", "unlimitedws top [ADDRESS] [--every-s SECONDS]", top_arguments, top),
}
