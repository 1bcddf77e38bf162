"""Every form in which people write the address of a cluster."""

from __future__ import annotations

import pytest

from castray_tui.core.discovery.addresses import Address, parse_address, split_host_port
from castray_tui.core.errors import AddressError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Address("auto")),
        ("  AUTO ", Address("auto")),
        ("ray://host:10001", Address("client", "host", 10001)),
        ("ray://host", Address("client", "host", 10001)),
        ("ray://[::1]:10002", Address("client", "::1", 10002)),
        ("host:8265", Address("plain", "host", 8265)),
        ("10.0.0.7:6379", Address("plain", "10.0.0.7", 6379)),
        ("[::1]:8265", Address("plain", "::1", 8265)),
        ("fe80::1%eth0", Address("plain", "fe80::1%eth0", None)),
        ("::1", Address("plain", "::1", None)),
        ("head.example.org", Address("plain", "head.example.org", None)),
        ("http://host:8265", Address("http", "host", 8265)),
        ("http://host:8265/#/nodes", Address("http", "host", 8265)),
        ("http://host:8265/?a=b", Address("http", "host", 8265)),
        ("http://host", Address("http", "host", 80)),
        ("https://proxy/ray/", Address("http", "proxy", 443, True, "/ray")),
        ("https://[fd00::2]:8443", Address("http", "fd00::2", 8443, True)),
    ],
)
def test_forms(text: str, expected: Address) -> None:
    assert parse_address(text) == expected
    assert parse_address(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "host:",
        "host:0",
        "host:65536",
        "host:99999999999999999999",
        "host:8265x",
        "host:٣",
        ":8265",
        "ho st:1",
        "host\x1b[31m:1",
        "[::1:8265",
        "[::1]8265",
        "[host]:1",
        "a:b:c",
        "ftp://host:21",
        "http://",
        "ray://",
        "http://host:8265/a b",
        "host/../../etc",
        "-host:1",
        "x" * 2_000,
    ],
)
def test_what_is_no_address_says_what_to_write(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["http://me:hunter2@host:8265", "me:hunter2@host"])
def test_a_password_in_an_address_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert "hunter2" not in str(caught.value)


def test_places_that_ray_writes() -> None:
    assert split_host_port("10.0.0.7:6379") == ("10.0.0.7", 6379)
    assert split_host_port("[fd00::2]:6379") == ("fd00::2", 6379)
    for text in ("", "None", "10.0.0.7", "http://10.0.0.7:6379", "a b:1", "host:port"):
        assert split_host_port(text) is None
