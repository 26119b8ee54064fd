"""Whether a configuration lets in who nobody has invited."""

from __future__ import annotations

from collections.abc import Sequence

from repowatch.config.places import shown
from repowatch.config.settings import Address, Config, TcpAddress
from repowatch.errors import UsageError
from repowatch.web.rights.rules import ANYONE


def refuse_open_doors(config: Config, addresses: Sequence[Address] | None = None) -> None:
    """Raise UsageError where strangers could upload, or passwords be overheard, and nobody allowed it.

    `addresses` are those of the sockets that were handed over, where they were. Not part of `load`, because
    the command line may still change the address or give the permission.
    """
    addresses = config.listen if addresses is None else addresses
    _refuse_tls_without_certificate(config, addresses)
    exposed = [each for each in addresses if isinstance(each, TcpAddress) and not each.is_loopback]
    _refuse_strangers(config, exposed)
    _refuse_overheard_passwords(config, exposed)


def _refuse_tls_without_certificate(config: Config, addresses: Sequence[Address]) -> None:
    for address in addresses:
        if config.tls is None and config.speaks_tls(address):
            raise UsageError(
                f"listen: https://{address} needs a certificate; configure `tls:`, or say http://"
            )


def _refuse_strangers(config: Config, exposed: Sequence[TcpAddress]) -> None:
    if not exposed or config.allow_anonymous_upload:
        return
    for repository in (*config.repositories, *config.patterns):
        if repository.write is None and not config.knows_names:
            reason, hint = "no users are configured", "configure `users:`"
        elif ANYONE in (repository.write or ()):
            reason, hint = f"`write` of {shown(repository.name)} names `anyone`", "name users there"
        else:
            continue
        raise UsageError(
            f"listen: anyone who can reach {exposed[0]} could upload, for {reason}; {hint}, listen on "
            "127.0.0.1, or say `allow_anonymous_upload: true` (--allow-anonymous-upload)"
        )


def _refuse_overheard_passwords(config: Config, exposed: Sequence[TcpAddress]) -> None:
    """Behind trusted proxies the doors refuse passwords from everybody else, request by request."""
    plain = [each for each in exposed if not config.speaks_tls(each)]
    if not plain or config.users is None or config.trusted_proxies or config.auth_over_http:
        return
    raise UsageError(
        f"listen: passwords could be overheard on their way to {plain[0]}, which does not speak TLS; "
        "configure `tls:`, name the proxy in front in `trusted_proxies:`, listen on 127.0.0.1, or, where the "
        "network is trusted, say `auth_over_http: true`"
    )
