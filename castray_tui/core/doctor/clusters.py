"""The doctor's checks of discovery: each method, each cluster found, and what is in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from castray_tui.core.config import KnownClusterSettings
from castray_tui.core.discovery.addresses import host_port
from castray_tui.core.discovery.ray_processes import LocalSession
from castray_tui.core.discovery.surroundings import Surroundings
from castray_tui.core.discovery.temp_dir import current_cluster, default_temp_dirs
from castray_tui.core.doctor.finding import Finding
from castray_tui.core.errors import ConfigError
from castray_tui.core.models import DiscoveredCluster, DiscoveryReport
from castray_tui.core.ray_api.tokens import REMEDY_FOR_MISSING, may_have_token, token_for

InstalledRay = Callable[[], str | None]


def check_methods(report: DiscoveryReport) -> list[Finding]:
    """What each discovery method came to."""
    findings = []
    for outcome in report.methods:
        took = f"{outcome.seconds * 1000:.0f} ms"
        found = f"{outcome.found} cluster{'' if outcome.found == 1 else 's'}"
        if outcome.error is None:
            findings.append(Finding(outcome.method, "ok", f"{found} in {took}"))
        else:
            findings.append(
                Finding(
                    outcome.method,
                    "warn",
                    f"{outcome.error} ({found} in {took})",
                    "What it found counts all the same; give it more time with "
                    "CLUSTER_DISCOVERY_TIMEOUT",
                )
            )
    if not report.clusters:
        findings.append(
            Finding(
                "clusters",
                "warn",
                "no Ray cluster was found from here",
                "Start one with `ray start --head`, name one with `castray doctor HOST:PORT`, or "
                "list its host in external_cluster.hosts",
            )
        )
    findings += [
        Finding(
            "ports",
            "warn",
            f"{service.address} answers and is no Ray dashboard: {service.what}",
            "A cluster whose dashboard wanted this port has another one; see its dashboard.log",
        )
        for service in report.foreign
    ]
    return findings


def check_cluster(
    cluster: DiscoveredCluster,
    *,
    known: Sequence[KnownClusterSettings],
    installed_ray: str | None,
    named_by_user: bool = False,
) -> list[Finding]:
    """One cluster: how it can be read, what it wants, and who owns it.

    Args:
        cluster: As it was found.
        known: The clusters of the configuration.
        installed_ray: The version of the Ray beside castray, None where there is none.
        named_by_user: Whether its address was given by the user.
    """
    name = cluster.name
    version = f"Ray {cluster.ray_version}" if cluster.ray_version else "a Ray of unknown version"
    found_by = f"found by {', '.join(cluster.sources)}"
    where = cluster.dashboard_url or cluster.gcs_address
    notes = [_of_note(name, note) for note in cluster.notes]
    if where is None:
        return [
            Finding(
                name,
                "warn",
                f"{version}, {found_by}, but no address of it leads anywhere from here",
                "It may live in a container or another network namespace: run castray there, or "
                "name an address that leads to it",
            ),
            *notes,
        ]
    findings = [Finding(name, "ok", f"{version} at {where}, {found_by}"), *notes]
    if cluster.needs_token:
        findings.append(_token_finding(cluster, known, named_by_user))
    if cluster.dashboard_url is None and not any("dashboard" in note for note in cluster.notes):
        findings.append(_without_dashboard(cluster, installed_ray))
    if cluster.owned_by_me is False:
        findings.append(
            Finding(
                name,
                "warn",
                f"its processes belong to the user {cluster.owner}, so it is read-only here",
                "A [[clusters]] entry with read_only = false allows transfers to it",
            )
        )
    return findings


def _of_note(name: str, note: str) -> Finding:
    remedy = None
    if "dashboard" in note and "does not answer" in note:
        remedy = "The dashboard hangs; look at dashboard.log in the session's logs on its head"
    elif "GCS" in note:
        remedy = "It may live in a container or another network namespace; name its dashboard"
    return Finding(name, "warn", note.rstrip("."), remedy)


def _token_finding(
    cluster: DiscoveredCluster, known: Sequence[KnownClusterSettings], named_by_user: bool
) -> Finding:
    entry = next((entry for entry in known if entry.name == cluster.name), None)
    if not may_have_token(cluster, named_by_user=named_by_user):
        where = cluster.dashboard_url or cluster.gcs_address
        return Finding(
            cluster.name,
            "warn",
            "it wants a token, and none is sent by itself to what may not be yours",
            f"Name it if you trust it: castray --connect {where}",
        )
    try:
        token = token_for(cluster, entry=entry, named_by_user=named_by_user)
    except ConfigError as error:
        return Finding(cluster.name, "fail", error.message, error.remedy)
    if token is None:
        return Finding(
            cluster.name,
            "fail",
            "it wants a token, and there is none for it",
            REMEDY_FOR_MISSING,
        )
    return Finding(cluster.name, "ok", f"it wants a token, and there is one ({token.origin})")


def _without_dashboard(cluster: DiscoveredCluster, installed_ray: str | None) -> Finding:
    """No dashboard: castray reads the GCS, with the Ray that is installed beside it."""
    message = "no dashboard answers (switched off, a minimal install, or out of reach)"
    if installed_ray is None:
        return Finding(
            cluster.name,
            "fail",
            f"{message}, and no Ray is installed beside castray to ask its GCS",
            "pip install ray into castray's environment, or start the cluster with its dashboard",
        )
    if cluster.ray_version not in {None, installed_ray}:
        return Finding(
            cluster.name,
            "warn",
            f"{message}; its GCS is read with Ray {installed_ray}, so some figures may be missing "
            f"and transfers need a Ray of its own version ({cluster.ray_version})",
            "Start it with its dashboard (pip install 'ray[default]' on the head)",
        )
    return Finding(
        cluster.name,
        "warn",
        f"{message}; its GCS is read, which tells no CPU, memory or disk use",
        "Start it with its dashboard (pip install 'ray[default]' on the head)",
    )


async def check_leftovers(environ: Mapping[str, str], report: DiscoveryReport) -> list[Finding]:
    """Processes, files and ports that do not agree with each other.

    Args:
        environ: Where Ray's temp dirs and ``RAY_ADDRESS`` are read from.
        report: What discovery found.
    """
    surroundings = Surroundings()
    try:
        return [
            *await _stale_records(environ, report, surroundings),
            *_unfound_sessions(await surroundings.sessions(), report),
        ]
    # The border of a check: what one cannot read must not hide the others.
    except Exception as error:
        return [Finding("processes", "warn", f"cannot be compared: {type(error).__name__}")]
    finally:
        await surroundings.close()


async def _stale_records(
    environ: Mapping[str, str], report: DiscoveryReport, surroundings: Surroundings
) -> list[Finding]:
    living = {cluster.gcs_address for cluster in report.clusters}
    findings = []
    for temp_dir in default_temp_dirs(environ):
        recorded = current_cluster(temp_dir)
        if recorded is None or host_port(*recorded) in living:
            continue
        answer = await surroundings.gcs(*recorded)
        if answer.state in {"answers", "wants_token"}:
            continue
        findings.append(
            Finding(
                "files",
                "warn",
                f"{temp_dir}/ray_current_cluster names {host_port(*recorded)}, where no GCS "
                "answers: it was left behind by a cluster that is gone",
                "Ray's own commands will wait for it; remove the file, or set RAY_ADDRESS",
            )
        )
    return findings or [Finding("files", "ok", "no stale record of a current cluster")]


def _unfound_sessions(sessions: Sequence[LocalSession], report: DiscoveryReport) -> list[Finding]:
    found = {cluster.session_name for cluster in report.clusters}
    findings = []
    for session in sessions:
        if session.session_name in found:
            continue
        what = "its GCS" if session.has_gcs else f"{session.raylet_count} raylet(s) of it"
        where = " in another network namespace" if session.elsewhere else ""
        findings.append(
            Finding(
                "processes",
                "warn",
                f"{what} runs here{where} ({session.session_name}, user "
                f"{session.owner or 'unknown'}), but it does not answer",
                "Enter the container or namespace to reach it, or name its dashboard as HOST:PORT",
            )
        )
    if findings:
        return findings
    return [
        Finding("processes", "ok", f"Ray processes of {len(sessions)} sessions here, all found")
    ]
