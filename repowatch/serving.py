"""The daemon as a command: from options, and what a configuration says, to a `Daemon` that runs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace

from repowatch.config import Address, Config, addresses_of, for_directories, load, parse_address
from repowatch.config.doors import refuse_open_doors
from repowatch.config.patterns import expand
from repowatch.errors import UsageError
from repowatch.progress import ShownProgress
from repowatch.system import logs
from repowatch.system.clock import SystemClock
from repowatch.system.logs import printable


def serve(options: argparse.Namespace) -> int:
    # The doors take longer to load than `check-config` to run.
    from repowatch.daemon import Daemon  # noqa: PLC0415
    from repowatch.system.systemd import ServiceManager  # noqa: PLC0415
    from repowatch.web.http.sockets import inherited  # noqa: PLC0415

    manager = ServiceManager.of(clock=SystemClock())
    config = _configuration(options)
    options.log_format = options.log_format or config.log_format
    logs.set_up(verbose=options.verbose, as_json=options.log_format == "json")
    handed_over = inherited(tls=config.tls is not None)
    addresses = None
    if handed_over:
        addresses = [parse_address(each.url) for each in handed_over if not each.is_unix]
    refuse_open_doors(config, addresses)
    daemon = Daemon(config, progress=ShownProgress(), handed_over=handed_over, manager=manager)
    return daemon.run(
        ready=lambda url: print(f"ready {url}", flush=True),
        reload=lambda: _reload(options, addresses),
    )


def _configuration(options: argparse.Namespace) -> Config:
    if options.config is None:
        missing = [each for each in options.directories if not os.path.isdir(each)]
        if missing:
            raise UsageError("\n".join(f"{each}: no such directory; make it first" for each in missing))
        return for_directories(
            options.directories,
            listen=options.listen,
            allow_anonymous_upload=options.allow_anonymous_upload,
        )
    if options.directories:
        raise UsageError("name directories or --config, not both")
    config = load(options.config)
    if options.listen:
        config = replace(config, listen=addresses_of(options.listen))
    if options.allow_anonymous_upload:
        config = replace(config, allow_anonymous_upload=True)
    return config


def _reload(options: argparse.Namespace, addresses: Sequence[Address] | None) -> Config:
    """SIGHUP: the configuration as it is now. Raises RepowatchError for a bad one."""
    wanted = _configuration(options)
    refuse_open_doors(wanted, addresses)
    return wanted


def check_config(options: argparse.Namespace) -> int:
    config = load(options.file)
    refuse_open_doors(config)
    found = expand(config)
    print(f"{options.file}: good, {len(found.repositories)} repositories")
    for each in found.refused:
        print(f"not served: {printable(each.path)}: {printable(each.reason)}")
    return 0
