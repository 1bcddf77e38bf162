"""Runs the doctor's checks, in the order in which a person would look."""

from __future__ import annotations

import os
import re
from importlib import metadata

from castray_tui.core.config import Settings
from castray_tui.core.config_loading import LoadedSettings
from castray_tui.core.discovery.identify import identify
from castray_tui.core.discovery.run import DiscoveryRequest, discover
from castray_tui.core.doctor.clusters import check_cluster, check_leftovers, check_methods
from castray_tui.core.doctor.finding import Finding
from castray_tui.core.doctor.machine import (
    check_configuration,
    check_proxies,
    check_space,
    check_state,
    check_versions,
)
from castray_tui.core.errors import CastrayError
from castray_tui.core.models import DiscoveredCluster
from castray_tui.core.ray_api.tokens import token_for

_NAME = re.compile(r"[A-Za-z0-9._-]+")


async def examine_surroundings(loaded: LoadedSettings) -> list[Finding]:
    """Everything that can be looked at without an address."""
    settings = loaded.settings
    external = settings.external_cluster
    findings = [
        *check_versions(),
        *check_configuration(loaded),
        *check_state(loaded),
        *check_space(loaded),
        *check_proxies(os.environ),
    ]
    if not external.enabled:
        return findings
    report = await discover(_request(settings))
    findings += check_methods(report)
    for cluster in report.clusters:
        findings += check_cluster(cluster, known=settings.clusters, installed_ray=_installed_ray())
    findings += await check_leftovers(os.environ, report)
    for entry in settings.clusters:
        findings += await examine_address(loaded, entry.address)
    return findings


async def examine_address(loaded: LoadedSettings, address: str) -> list[Finding]:
    """What stands at one address that the user named, or that the configuration names."""
    settings = loaded.settings
    entry = next(
        (entry for entry in settings.clusters if address in {entry.name, entry.address}), None
    )
    if entry is not None:
        address = entry.address
    elif (named := await _found_by_name(settings, address)) is not None:
        return check_cluster(named, known=settings.clusters, installed_ray=_installed_ray())
    try:
        stub = DiscoveredCluster(key=f"address:{address}", name=address, sources=("manual",))
        token = token_for(stub, entry=entry, named_by_user=True)
        cluster = await identify(
            address,
            timeout_seconds=settings.external_cluster.connection_timeout,
            token=token.reveal() if token is not None else None,
        )
    except CastrayError as error:
        return [Finding(address, "fail", error.message, error.remedy)]
    findings = check_cluster(
        cluster, known=settings.clusters, installed_ray=_installed_ray(), named_by_user=True
    )
    nodes = "an unknown number of" if cluster.node_count is None else str(cluster.node_count)
    return [
        Finding(address, "ok", f"a Ray cluster with {nodes} alive nodes stands there"),
        *findings,
    ]


async def _found_by_name(settings: Settings, name: str) -> DiscoveredCluster | None:
    """The cluster that a discovery gives that name; None for what can only be an address."""
    if _NAME.fullmatch(name) is None:
        return None
    report = await discover(_request(settings))
    return next((cluster for cluster in report.clusters if cluster.name == name), None)


def _request(settings: Settings) -> DiscoveryRequest:
    external = settings.external_cluster
    return DiscoveryRequest(
        methods=external.discovery_methods,
        ports=external.port_scan_range,
        hosts=external.hosts,
        timeout_seconds=external.discovery_timeout,
        known=settings.clusters,
        ray_address=os.environ.get("RAY_ADDRESS"),
    )


def _installed_ray() -> str | None:
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return None
