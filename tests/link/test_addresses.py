"""No name leads to an address of the hospital's own network, in whatever clothes it comes."""

import pytest

from appliance.link.addresses import LOOPBACK, policy


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.0.9", "0.0.0.9", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
        "169.254.169.254", "224.0.0.1", "239.255.255.250", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::127.0.0.1",
        "localhost", "", "1.2.3", "2130706433",
    ],
)  # fmt: skip
def test_forbidden(address: str) -> None:
    assert not policy().permits(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2a01:4f8::1", "::ffff:9.9.9.9", "64:ff9b::909:909"]
)
def test_permitted(address: str) -> None:
    assert policy().permits(address)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_what_is_listed_is_permitted_and_nothing_beside_it(address: str) -> None:
    laboratory = policy(LOOPBACK)
    assert laboratory.permits(address)
    assert not laboratory.permits("10.0.0.1") and not laboratory.permits("::ffff:10.0.0.1")


def test_nonsense_in_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        policy(["the hospital"])
