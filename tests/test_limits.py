"""Settings that no network of a family can have are refused in one line: the setting, its value, what is allowed."""

import sys

import pytest

from nasjax import supernets
from nasjax.cli import main
from nasjax.supernets.families.limits import check_limits

MOBILENET, RESNET = "ofa_mbv3_d234_e346_k357_w1.0", "ofa_resnet50"
BOTH = (
    ("classes", 0, "a whole number of at least 1"),
    ("classes", 2.5, "a whole number of at least 1"),
    ("classes", True, "a whole number of at least 1"),
    ("channels", 0, "a whole number of at least 1"),
    ("stem_width", 0, "a whole number of at least 1"),
    ("image_size", "224", "a whole number"),
    ("image_size", 224.5, "a whole number"),
    ("resolutions", (160.5,), "a list, each entry a whole number"),
    ("epsilon", 0.0, "a number above 0"),
    ("epsilon", float("nan"), "a number above 0"),
    ("expands", (), "a list, each entry a number above 0"),
    ("expands", (0, 1), "a list, each entry a number above 0"),
)
OF_MOBILENET = (
    ("stem_stride", 0, "a whole number of at least 1"),
    ("strides", (0, 2, 2, 1, 2), "a list, each entry a whole number of at least 1"),
    ("strides", 2, "a list, each entry a whole number of at least 1"),
    ("depths", ((0, 1),) * 5, "a list of lists, each entry a whole number of at least 1"),
    ("depths", ((),) * 5, "a list of lists, each entry a whole number of at least 1"),
    ("depths", (2, 3, 4, 2, 2), "a list of lists, each entry a whole number of at least 1"),
    ("final_width", -1, "a whole number of at least 0"),
    ("kernels", (2, 4), "a list, each entry an odd whole number of at least 1"),
)
OF_RESNET = (
    ("strides", (1, 2, 3, 2), "a list, each entry 1 or 2"),
    ("strides", (0, 2, 2, 2), "a list, each entry 1 or 2"),
    ("least_depths", (0, 2, 4, 2), "a list, each entry a whole number of at least 1"),
    ("depths", (-1, 1), "a list, each entry a whole number of at least 0"),
    ("multipliers", (0, 1.0), "a list, each entry a number above 0"),
    ("multipliers", (), "a list, each entry a number above 0"),
)


@pytest.mark.parametrize(
    ("network", "name", "value", "allowed"),
    [(net, *rest) for net, cases in ((MOBILENET, BOTH + OF_MOBILENET), (RESNET, BOTH + OF_RESNET)) for rest in cases],
)
def test_a_number_that_is_not_allowed_is_named(network, name, value, allowed):
    """Of a configuration that is not made by its constructor: here that one checks types before anything else."""
    config = object.__new__(type(supernets.SUPERNETS[network]))
    limits = sys.modules[type(config).__module__].LIMITS
    check_limits(config, limits)
    object.__setattr__(config, name, value)
    with pytest.raises(ValueError) as refused:
        check_limits(config, limits)
    assert str(refused.value) == f"supernet.{name} must be {allowed}, not {value}"


@pytest.mark.parametrize("network", [MOBILENET, RESNET])
def test_what_is_at_the_edge_is_allowed_and_what_is_beyond_refused(network):
    edge = {"classes": 1, "channels": 1, "resolutions": (), "expands": (1,)}
    if network == MOBILENET:
        edge |= {"strides": (1,) * 5, "stem_stride": 3, "depths": ((1,),) * 5, "first_width": 0, "final_expand": 0,
                 "final_width": 0, "kernels": (1,), "image_size": 32}  # fmt: skip
    else:
        edge |= {"strides": (1,) * 4, "least_depths": (1,) * 4, "depths": (0, 1), "multipliers": (0.1,), "image_size": 1}
    assert supernets.create(network, **edge).output().shape == (1, 1)
    with pytest.raises(ValueError, match=r"supernet\.classes must be a whole number of at least 1, not 0"):
        supernets.abstract(network, classes=0)


def test_the_command_line_says_it_in_one_line(capsys):
    assert main(["search", f"supernet={RESNET}", "supernet.strides=[1,2,3,2]"]) == 2
    error = capsys.readouterr().err
    assert error == "nasjax: supernet.strides must be a list, each entry 1 or 2, not (1, 2, 3, 2)\n"


@pytest.mark.parametrize("name", ["image_size", "classes"])
def test_a_number_beyond_all_shapes_is_refused_before_anything_is_made(name):
    with pytest.raises(ValueError, match=f"supernet.{name} must be at most 16777216, not 9223372036854775808"):
        supernets.create("digits", **{name: 2**63}, checkpoint=None)
