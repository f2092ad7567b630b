"""The ``ofa-agent`` command: serve, info, bundle; probe and end are for hosts that connect through SSH."""

import argparse
import json
import os
import sys
from typing import Any, Callable, Dict, List, Optional

import ofa_agent
from ofa_agent.text import one_line

EXAMPLES = """examples:
  ofa-agent info                                  describe this device and its runtimes
  ofa-agent serve                                 serve on a free port of 127.0.0.1 until Ctrl-C
  ofa-agent serve --host 0.0.0.0 --port 7000 --token-file token --tls-cert cert.pem --tls-key key.pem
  ofa-agent bundle --out .                        write one file to run on a device: python3 ofa-agent-….pyz serve
"""


def main(arguments: Optional[List[str]] = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["worker"]:  # started by the agent itself
        from ofa_agent.measuring import worker

        return worker.main(arguments[1:])
    options = _parser().parse_args(arguments)
    if options.command is None:
        _parser().print_help(sys.stderr)
        return 2
    from ofa_agent.service.lock import DeviceBusy

    try:
        return int(options.command(options))
    except DeviceBusy as error:
        return _fail(str(error) + "; use that agent, or run ofa-agent end first")
    except OSError as error:
        return _fail("%s: %s" % (error.filename or "system error", error.strerror or error))
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ofa-agent",
        description="Time blocks of neural networks on this device for an ofa-profile host.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version="ofa-agent " + ofa_agent.__version__)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="serve | info | bundle | probe | end")

    serve = commands.add_parser(
        "serve",
        help="serve this device to one host at a time",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to serve on [default: %(default)s]")
    serve.add_argument("--port", type=int, default=0, help="port to serve on; 0 chooses a free port [default: 0]")
    serve.add_argument("--token-file", metavar="F", help="file with the token that hosts must present")
    serve.add_argument("--token-stdin", action="store_true", help="read the token from one line of standard input")
    serve.add_argument("--tls-cert", metavar="F", help="certificate chain (PEM); requires --tls-key")
    serve.add_argument("--tls-key", metavar="F", help="private key (PEM); requires --tls-cert")
    serve.add_argument("--linger", type=float, metavar="S", help="exit after S seconds without a lease")
    serve.add_argument(
        "--detach", action="store_true", help="print the address and continue to serve in the background"
    )
    serve.add_argument("--end-with-stdin", action="store_true", help="exit when standard input closes")
    serve.add_argument(
        "--lock-wait",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds to wait for another agent on this device to exit [default: 0]",
    )
    serve.add_argument(
        "--allow-command",
        action="append",
        default=[],
        metavar="PROGRAM",
        help="program that the command templates of hosts may run, as the template names it; repeatable",
    )
    serve.add_argument(
        "--allow-commands", action="store_true", help="let the command templates of hosts run any program"
    )
    serve.add_argument("--json", action="store_true", help="print the address as a JSON object")
    serve.set_defaults(command=_serve)

    probe = commands.add_parser("probe", help="print which requirements this Python meets, as a JSON object")
    probe.set_defaults(command=_probe)

    end = commands.add_parser("end", help="end the agent that serves this device")
    end.set_defaults(command=_end)

    info = commands.add_parser("info", help="describe this device and its runtimes")
    info.add_argument("--json", action="store_true", help="print a JSON object")
    info.set_defaults(command=_info)

    bundle = commands.add_parser("bundle", help="write this agent as one file to copy to a device")
    bundle.add_argument("--out", default=".", metavar="DIR", help="output directory [default: %(default)s]")
    bundle.set_defaults(command=_bundle)
    return parser


def _serve(options: Any) -> int:
    if not 0 <= options.port < 1 << 16:
        return _fail("--port %d is not a port; use 1 to 65535, or 0 for a free port" % options.port, code=2)
    token = None
    if options.token_stdin:
        token = _line_of_stdin()
    elif options.token_file:
        token = _content(options.token_file).decode().strip()
    if token == "":
        return _fail("the token is empty; use a token of at least one character", code=2)

    say: Callable[[str], None] = _print_line
    if options.detach:
        from ofa_agent.service.detach import detach

        say = detach()

    def announce(address: str) -> None:
        say(json.dumps({"address": address, "pid": os.getpid()}) if options.json else "serving on " + address)

    try:
        from ofa_agent.service import server
    except ImportError as error:
        return _fail("%s; install the missing packages with python3 -m pip install grpcio protobuf numpy" % error)
    try:
        server.serve(
            server.ServeOptions(
                host=options.host,
                port=options.port,
                token=token,
                tls_cert=_content(options.tls_cert) if options.tls_cert else None,
                tls_key=_content(options.tls_key) if options.tls_key else None,
                tls_files=(options.tls_cert, options.tls_key) if options.tls_cert and options.tls_key else None,
                linger_s=options.linger,
                end_with_stdin=options.end_with_stdin,
                lock_wait_s=options.lock_wait,
                programs=None if options.allow_commands else options.allow_command,
            ),
            announce,
        )
    except server.ServeError as error:
        return _fail(str(error), error.exit_code)
    return 0


def _probe(options: Any) -> int:
    from ofa_agent.device.probe import probe

    _print_line(json.dumps(probe()))
    return 0


def _end(options: Any) -> int:
    from ofa_agent.service import lock

    _print_line("ended" if lock.end() else "no agent serves this device")
    return 0


def _print_line(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _info(options: Any) -> int:
    from ofa_agent.conditions.thermal import hottest_c
    from ofa_agent.device import description as device
    from ofa_agent.device.shell import LocalShell
    from ofa_agent.measuring.worker import WorkerGone, WorkerProcess
    from ofa_agent.protocol import messages as wire

    try:
        worker = WorkerProcess()
        worker.stop()
        ready = worker.ready
    except WorkerGone as gone:
        ready = wire.WorkerReady(missing_runtimes={"worker": str(gone)})
    facts = wire.to_dict(device.describe(LocalShell(), ready))
    if options.json:
        print(json.dumps(facts))
        return 0
    clusters = ", ".join(
        "%d cores%s" % (len(c["cpus"]), " up to %d MHz" % c["max_mhz"] if c["max_mhz"] else "")
        for c in facts["clusters"]
    )
    condition = facts["condition"]
    hottest = hottest_c(condition["temperatures_c"])
    rows = [
        ("chip", "%s (%s), %s" % (facts["chip"], facts["machine"], clusters)),
        ("memory", "%.1f GiB" % (facts["memory_bytes"] / 2.0**30)),
        ("system", "%s, kernel %s, Python %s" % (facts["os"], facts["kernel"], facts["python"])),
        ("clock", "%s MHz, governor %s" % (condition["clock_mhz"] or "?", condition["governor"] or "unknown")),
        ("hottest", "unknown" if hottest is None else "%.1f °C" % hottest),
        ("load", "%.2f" % condition["load"]),
        ("cores used", condition["affinity"] or "unknown"),
    ]
    if condition["power_mode"]:
        rows.append(("power mode", condition["power_mode"]))
    if facts["software"]:
        rows.append(("Jetson", ", ".join("%s %s" % pair for pair in facts["software"].items())))
    if condition["gpu_clock_mhz"]:
        rows.append(("GPU clock", "%d MHz" % condition["gpu_clock_mhz"]))
    if condition["power_of"]:
        rows.append(("power", "%.2f W, %s" % (condition["power_w"], condition["power_of"])))
    if condition["hot"] or condition["throttled"]:
        rows.append(("heat", "throttled" if condition["throttled"] else "hot, close to throttling"))
    rows += [
        ("runtimes", ", ".join("%s %s" % pair for pair in sorted(facts["runtimes"].items())) or "none"),
        ("agent", "%s, protocol %d, device %s" % (facts["agent_version"], facts["protocol"], facts["fingerprint"])),
    ]
    why: Dict[str, List[str]] = {}
    for name, reason in sorted(facts["missing_runtimes"].items()):
        why.setdefault(reason, []).append(name)
    rows += [("missing", "%s: %s" % (", ".join(names), reason)) for reason, names in why.items()]
    for name, value in rows:
        _print_encodable("%-10s %s" % (name, value))
    return 0


def _print_encodable(line: str) -> None:
    """Print a line, with ``?`` for characters that the encoding lacks.

    Without a locale the encoding is ASCII, and Python 3.6 raises an error for other characters.
    """
    encoding = sys.stdout.encoding or "ascii"
    print(line.encode(encoding, "replace").decode(encoding))


def _bundle(options: Any) -> int:
    from ofa_agent import bundle

    content = bundle.build()
    path = os.path.join(options.out, bundle.file_name(content))
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o755)
    print(path)
    return 0


def _line_of_stdin() -> str:
    """Read the first line of standard input, byte by byte so that the rest stays unread."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            break
        line += byte
    return line.decode().strip()


def _content(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _fail(text: str, code: int = 1) -> int:
    sys.stderr.write("error: %s\n" % one_line(text))
    return code


if __name__ == "__main__":
    sys.exit(main())
