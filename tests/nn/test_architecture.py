"""Checks of the size and the options of the transformer."""

import pytest

from alphastomics.config import Architecture


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_model": 10, "num_heads": 4}, "d_model=10 is not divisible by num_heads=4"),
        ({"num_experts": 2, "moe_top_k": 3}, "moe_top_k=3 is more than num_experts=2"),
        ({"num_experts": -1}, "num_experts must be at least 0, found -1"),
        ({"num_layers": -1}, "num_layers must be at least 0, found -1"),
        (
            {"gate_type": "foo"},
            "gate_type must be one of 'none', 'headwise', 'elementwise', found 'foo'",
        ),
        ({"attention": "foo"}, "attention must be one of 'softmax', 'linear', found 'foo'"),
        ({"num_experts": 3, "d_ff": 256}, "d_ff=256 is not divisible by num_experts=3"),
        ({"num_experts": 2, "expert_width": 0}, "expert_width must be at least 1, found 0"),
        ({"num_experts": 2, "moe_top_k": 0}, "moe_top_k must be at least 1, found 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, found 1.0"),
        ({"router_noise": -0.1}, "router_noise must be at least 0, found -0.1"),
    ],
)
def test_an_impossible_architecture_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Architecture(**options)


def test_experts_share_the_width_of_the_feed_forward_unless_one_is_given():
    assert Architecture(num_experts=4, d_ff=256).d_expert == 64
    assert Architecture(num_experts=3, d_ff=256, expert_width=50).d_expert == 50
