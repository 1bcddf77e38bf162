"""Coordinators that castray left running: what is noted of them, and who may go to them again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from castray_tui.agent import bundle
from castray_tui.core.config import KnownClusterSettings, Settings, TransferSettings
from castray_tui.core.errors import TransferError
from castray_tui.core.models import DiscoveredCluster
from castray_tui.core.reunion import Reunion
from castray_tui.core.transfer.contacts import Contact, ContactBook, ControlPlace

FOUND = DiscoveredCluster(
    key="c" * 56,
    name="ml",
    cluster_id="c" * 56,
    dashboard_url="http://10.0.0.5:8265",
    dashboard_vouched=True,
    sources=("config", "manual"),
    on_this_host=True,
    owned_by_me=True,
    resources={"CPU": 4.0},
    notes=("a note",),
)
PLACE = ControlPlace(hosts=("10.0.0.5", "127.0.0.1"), port=4321, public_key=2**2000 + 1)
CONTACT = Contact(FOUND, None, PLACE)
LISTING = [
    {"node_id": "b" * 56, "alive": True, "address": "10.0.0.7", "hostname": "w", "is_head": False},
    {"node_id": "a" * 56, "alive": False, "address": "10.0.0.6", "hostname": "d", "is_head": False},
    {"node_id": "f" * 56, "alive": True, "address": "10.0.0.5", "hostname": "h", "is_head": True},
]


class Service:
    """The one method of the transfer service that a reunion uses."""

    def __init__(self, listing: list[dict[str, Any]] | None) -> None:
        self._listing = listing
        self.met: list[str] = []

    async def meet(self, contact: Contact) -> list[dict[str, Any]]:
        if self._listing is None:
            raise TransferError("nobody there")
        self.met.append(contact.found.name)
        return self._listing


def book_in(state_dir: Path, **settings: Any) -> ContactBook:
    return ContactBook(state_dir, TransferSettings(**settings))


def reunion(state_dir: Path, service: Service, **settings: Any) -> Reunion:
    return Reunion(Settings(**settings), state_dir, service)  # type: ignore[arg-type]


# --- the book ---------------------------------------------------------------------------------


def test_what_is_noted_is_read_again(tmp_path: Path) -> None:
    book_in(tmp_path).note(CONTACT)
    assert book_in(tmp_path).named("ml") == CONTACT
    assert book_in(tmp_path).named("other") is None
    (file,) = (tmp_path / "contacts").iterdir()
    assert file.stat().st_mode & 0o077 == 0


def test_a_new_contact_takes_the_place_of_the_old(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    book.note(CONTACT)
    book.note(replace(CONTACT, place=replace(PLACE, port=99)))
    found = book.named("ml")
    assert found is not None
    assert found.place.port == 99
    book.forget(FOUND.key)
    assert book.named("ml") is None
    book.forget(FOUND.key)


def test_two_clusters_of_one_name_are_told_apart_by_asking_them(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    book.note(CONTACT)
    book.note(replace(CONTACT, found=replace(FOUND, key="d" * 56)))
    assert book.named("ml") is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda told: "no json",
        lambda told: json.dumps([]),
        lambda told: json.dumps({**told, "port": "x"}),
        lambda told: json.dumps({**told, "found": {"key": "k"}}),
        lambda told: json.dumps({**told, "found": {**told["found"], "new_field": 1}}),
        lambda told: json.dumps({**told, "made_of": "another version"}),
    ],
)
def test_what_cannot_be_used_is_as_good_as_none(tmp_path: Path, damage: Any) -> None:
    book = book_in(tmp_path)
    book.note(CONTACT)
    (file,) = (tmp_path / "contacts").iterdir()
    file.write_text(damage(json.loads(file.read_text())))
    assert book.named("ml") is None


def test_only_the_same_agent_is_gone_back_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "agent"
    package.mkdir()
    source = package / "bundle.py"
    source.write_text("old")
    monkeypatch.setattr(bundle, "__file__", str(source))
    book = book_in(tmp_path)
    book.note(CONTACT)
    assert book.named("ml") is not None
    source.write_text("newer")
    assert book.named("ml") is None


def test_agents_of_other_settings_are_not_gone_back_to(tmp_path: Path) -> None:
    book_in(tmp_path, port_range=(40000, 40010)).note(CONTACT)
    assert book_in(tmp_path, port_range=(40000, 40010)).named("ml") == CONTACT
    assert book_in(tmp_path).named("ml") is None
    assert book_in(tmp_path, port_range=(40000, 40010), niceness=5).named("ml") is None
    assert book_in(tmp_path, port_range=(40000, 40010), streams=1).named("ml") == CONTACT


def test_a_folder_that_cannot_be_used_takes_nothing_down(tmp_path: Path) -> None:
    (tmp_path / "contacts").write_text("in the way")
    book = book_in(tmp_path)
    book.note(CONTACT)
    assert book.named("ml") is None
    book.forget(FOUND.key)
    assert (tmp_path / "contacts").read_text() == "in the way"


# --- the reunion ------------------------------------------------------------------------------


async def test_a_coordinator_that_answers_gives_cluster_and_nodes(tmp_path: Path) -> None:
    book_in(tmp_path).note(CONTACT)
    made = reunion(tmp_path, Service(LISTING))
    (met,) = await made.meet(["ml"])
    assert made.has_met(["ml"])
    assert (met.cluster.key, met.cluster.name, met.cluster.state) == (FOUND.key, "ml", "connected")
    assert [(node.name, node.status, node.is_head) for node in met.nodes] == [
        ("head", "alive", True),
        ("10.0.0.6", "dead", False),
        ("10.0.0.7", "alive", False),
    ]
    door = made.door(FOUND.key)
    assert door is not None
    assert door.read_only_reason is None
    assert made.door("another") is None


async def test_text_of_a_coordinator_is_made_safe(tmp_path: Path) -> None:
    book_in(tmp_path).note(CONTACT)
    made = reunion(tmp_path, Service([{**LISTING[0], "hostname": "w\x1b[2J"}]))
    (met,) = await made.meet(["ml"])
    assert "\x1b" not in str(met)


async def test_nobody_is_asked_unless_all_are_noted(tmp_path: Path) -> None:
    book_in(tmp_path).note(CONTACT)
    service = Service(LISTING)
    made = reunion(tmp_path, service)
    assert await made.meet(["ml", "web"]) == []
    assert service.met == []
    assert not made.has_met(["ml", "web"])


async def test_one_that_does_not_answer_is_not_met(tmp_path: Path) -> None:
    book_in(tmp_path).note(CONTACT)
    made = reunion(tmp_path, Service(None))
    assert await made.meet(["ml"]) == []
    assert not made.has_met(["ml"])
    assert made.door(FOUND.key) is None


@pytest.mark.parametrize(
    ("noted", "settings"),
    [
        (CONTACT, {"read_only": True}),
        (CONTACT, {"clusters": (KnownClusterSettings("ml", "10.9.9.9:8265"),)}),
        (
            replace(CONTACT, entry_address="10.0.0.5:8265"),
            {"clusters": (KnownClusterSettings("ml", "10.0.0.5:8265", read_only=True),)},
        ),
        (replace(CONTACT, entry_address="10.0.0.5:8265"), {}),
        (replace(CONTACT, found=replace(FOUND, owned_by_me=False)), {}),
    ],
)
async def test_the_settings_of_today_count(
    tmp_path: Path, noted: Contact, settings: dict[str, Any]
) -> None:
    book_in(tmp_path).note(noted)
    service = Service(LISTING)
    assert await reunion(tmp_path, service, **settings).meet(["ml"]) == []
    assert service.met == []


async def test_an_entry_may_open_a_cluster_of_another_user(tmp_path: Path) -> None:
    theirs = replace(FOUND, owned_by_me=False)
    book_in(tmp_path).note(Contact(theirs, "10.0.0.5:8265", PLACE))
    entry = KnownClusterSettings("ml", "10.0.0.5:8265", read_only=False)
    assert await reunion(tmp_path, Service(LISTING), clusters=(entry,)).meet(["ml"])
