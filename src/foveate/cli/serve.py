"""`foveate serve`: an OpenAI-compatible server whose requests share one budget of cache bytes."""

import ipaddress
import logging
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from foveate.cli import console
from foveate.cli.ask import Attention, Device, Dtype, Keep, MethodName, Model, Options
from foveate.errors import InputError

VARIABLE = "FOVEATE_API_KEY"
UNREAD = 120  # seconds that a client may read nothing of what it was sent
UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}
UNITS |= {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}

KvBytes = Annotated[
    str | None,
    typer.Option(
        "--kv-bytes",
        help="Bytes for the caches of all requests, such as 2GiB; unbounded if not given.",
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen at; 0.0.0.0 for all.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port; 0 for a free one.")]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        help=f"File of keys, one a line; or give one in the variable {VARIABLE}.",
    ),
]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host",
        metavar="HOST",
        help="Fetch pictures from this host, over https; may be repeated.",
    ),
]
HostName = Annotated[
    list[str] | None,
    typer.Option(
        "--server-name",
        metavar="NAME",
        help="Answer to this host name alone; may be repeated. On 127.0.0.1, to local names alone.",
    ),
]
ClientMethods = Annotated[
    str | None,
    typer.Option("--client-methods", help="Methods that requests may name; all if not given."),
]
ModelName = Annotated[
    str | None, typer.Option("--model-name", help="What clients call the model; as --model.")
]
Queue = Annotated[int, typer.Option("--queue", min=1, help="Requests that may wait.")]
NewTokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="The longest answer that may be asked for.")
]
Seconds = Annotated[
    float, typer.Option("--timeout", min=0.1, help="Seconds until a request is given up.")
]
MaxBody = Annotated[str, typer.Option("--max-body", help="The largest request, such as 32MiB.")]
Pixels = Annotated[int, typer.Option("--max-pixels", min=1, help="Pixels of a picture.")]
Pictures = Annotated[int, typer.Option("--max-pictures", min=1, help="Pictures of a request.")]
Page = Annotated[
    bool,
    typer.Option("--ui", help="Also serve a page on which people ask and move the budget, at /."),
]
LogPrompts = Annotated[
    bool, typer.Option("--log-prompts", help="Write the texts of requests into the log, too.")
]


@console.reported
def command(
    context: typer.Context,
    model: Model = None,
    method: MethodName = "aircache",
    keep: Keep = None,
    option: Options = None,
    kv_bytes: KvBytes = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn: Attention = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    api_key_file: KeyFile = None,
    server_name: HostName = None,
    allow_host: AllowHost = None,
    client_methods: ClientMethods = None,
    model_name: ModelName = None,
    queue: Queue = 64,
    max_new_tokens: NewTokens = 4096,
    timeout: Seconds = 600.0,
    max_body: MaxBody = "32MiB",
    max_pixels: Pixels = 20_000_000,
    max_pictures: Pictures = 16,
    log_prompts: LogPrompts = False,
    ui: Page = False,
) -> None:
    """Answer OpenAI's clients over HTTP, with compressed caches; logs are JSON lines on stderr."""
    from foveate.serve import create_app

    settings = read_settings(context.params, _hosts(host, server_name))
    if ui:
        _check_page(settings, host)
    with _bound(host, port) as listening:
        with console.only_stderr(), console.err().status("loading the model"):
            engine = load_engine(context.params)
        app = create_app(engine, settings)
        if ui:
            from foveate.serve.ui.page import add_page

            add_page(app)
        _run(app, settings, listening, host, ui)


def read_settings(given: Mapping[str, Any], hosts: tuple[str, ...]) -> Any:
    """Return the settings of a server that answers to these hosts, given the command's options."""
    from foveate.cli import options
    from foveate.serve import Settings

    name, methods = given["method"], given["client_methods"]
    method = options.parse_options(name, given["option"] or [])
    method |= {} if given["keep"] is None else {"keep": options.parse_keep(given["keep"])}
    return Settings(
        model=given["model_name"] or _shown(given["model"]),
        method=name,
        options=method,
        methods=None if methods is None else _names(methods, name),
        keys=_keys(given["api_key_file"]),
        hosts=hosts,
        picture_hosts=tuple(given["allow_host"] or ()),
        body_bytes=parse_bytes("--max-body", given["max_body"]),
        pixels=given["max_pixels"],
        pictures=given["max_pictures"],
        max_new_tokens=given["max_new_tokens"],
        seconds=given["timeout"],
        log_prompts=given["log_prompts"],
    )


def _shown(model: str | None) -> str:
    """Return what clients call a model: its id, or the name of its folder, not where that is."""
    if model is None:
        return "embedded"
    folder = Path(model).expanduser()
    return folder.resolve().name if folder.is_dir() else model


def read_engine(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return method, budget and queue of the engine, given the command's options."""
    from foveate.cli import options

    text, name = given["kv_bytes"], given["method"]
    return {
        "method": None
        if name == "full"
        else options.build_method(name, given["keep"], given["option"] or []),
        "kv_bytes": None if text is None else parse_bytes("--kv-bytes", text),
        "queue": given["queue"],
    }


def load_engine(given: Mapping[str, Any]) -> Any:
    """Return the engine with its model, given the command's options."""
    from foveate.cli import models
    from foveate.serve.engine import Engine

    asked = read_engine(given)
    loaded = models.load(given["model"], given["dtype"], given["device"], given["attn"])
    return Engine(loaded.model, loaded.processor, **asked)


def _check_page(settings: Any, host: str) -> None:
    from foveate.serve.ui.page import check

    check(settings)
    if not settings.keys and not _is_loopback(host):
        raise InputError(
            f"--ui with --host {host} opens the page to whoever reaches this machine; give "
            "--api-key-file, and the page asks for a key, or listen at 127.0.0.1"
        )


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket of that address, before minutes go into a model; it does not listen yet."""
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux; connections inherit it
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 1000 * UNREAD)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise InputError(
            f"--host {host} --port {port} cannot be listened at: {error.strerror}; give another "
            "port (0 for a free one), or an address of this machine"
        ) from error
    return made


def _run(app: Any, settings: Any, listening: socket.socket, host: str, ui: bool) -> None:
    """Listen until somebody stops it."""
    import uvicorn

    from foveate.serve import logs

    config = uvicorn.Config(
        app,
        http="h11",  # httptools, where it is installed, takes headers without end
        log_config=logs.CONFIG,
        access_log=False,
        server_header=False,
        limit_concurrency=1024,
        timeout_graceful_shutdown=10,
    )
    config.configure_logging()
    logging.captureWarnings(True)  # such as Pillow's about damaged pictures: a line, too
    for note in app.state.engine.notes:
        logs.write("note", 30, advice=note)
    listening.listen(config.backlog)  # so that whoever reads the address may ask at once
    place = f"http://{host if ':' not in host else f'[{host}]'}:{listening.getsockname()[1]}"
    if not settings.keys and not _is_loopback(host):
        logs.write("open", 30, advice="everybody who reaches it may ask; give --api-key-file")
    console.out().print(f"{settings.model} at {place}/v1", soft_wrap=True, markup=False)
    if ui:
        console.out().print(f"the page at {place}/", soft_wrap=True, markup=False)
    uvicorn.Server(config).run(sockets=[listening])


def parse_bytes(option: str, text: str) -> int:
    """Return a number of bytes.

    >>> parse_bytes("--kv-bytes", "2GiB"), parse_bytes("--kv-bytes", "1.5 MB")
    (2147483648, 1500000)
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", text)
    if found is None or found[2].upper() not in UNITS or float(found[1]) == 0:
        raise InputError(f"{option} {text!r} is not a size; give one such as 512MiB or 2GiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _names(text: str, own: str) -> tuple[str, ...]:
    """Return the methods that requests may name: the server's own, and others that there are."""
    import foveate

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        if "+" in name:
            both = name.replace("+", ",")
            raise InputError(f"--client-methods {name} is two methods; give both, as {both}")
        if name != own:
            foveate.method(name)
    return names


def _keys(file: Path | None) -> tuple[str, ...]:
    """Return the keys of the variable and the file."""
    given = os.environ.get(VARIABLE)
    found = [] if given is None else [given.strip()]
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"--api-key-file {file} cannot be read: {error}") from error
        listed = [line for line in map(str.strip, lines) if line and line[0] != "#"]
        if not listed:
            raise InputError(f"--api-key-file {file} holds no key; write one a line")
        found += listed
    return tuple(found)


def _hosts(host: str, names: list[str] | None) -> tuple[str, ...]:
    """Return the names that the server answers to: on a local address, no name of the internet."""
    if names:
        return tuple(names)
    return ("localhost", "127.0.0.1", "::1", host) if _is_loopback(host) else ()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
