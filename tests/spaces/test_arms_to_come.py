"""Does the contract hold the arms that come next? A sketch of each one's price, against its facts.

Definitions and figures: the papers named beside each. Nothing here is built; a price is enough to
be planned, solved onto a budget, and compared in FLOPs, active and stored parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import pytest

from spaces.arms.contract import Arm
from spaces.parts.block_price import block_price
from spaces.parts.mixing_price import loop_router_price
from spaces.parts.vocabulary_price import head_price
from spaces.price import BACKWARD_PER_FORWARD, NOTHING, Pass, Price, Prices, plain_price, total


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """A shape to price."""

    num_layers: int = 4
    num_loops: int = 4
    d_model: int = 64
    ffn: int = 128
    context_length: int = 32
    vocab_size: int = 256


SIZES = Sizes()


def share_of_tokens(shape: Sizes, share: Fraction) -> Price:
    """A block that only a share of the tokens pass, who see only each other: c of the products and
    c^2 of the scores."""
    chosen = share * shape.context_length
    assert chosen.denominator == 1
    return block_price(shape.d_model, shape.ffn, int(chosen))


class Looped(Arm):
    """Layers applied K times with a router each time."""

    def body_price(self, shape: Any) -> Prices:
        block = block_price(shape.d_model, shape.ffn, shape.context_length)
        router = loop_router_price(shape.d_model, shape.context_length)
        return {
            "deep": block.applied(shape.num_loops) * shape.num_layers,
            "shared": router.applied(shape.num_loops),
        }


class Act(Looped):
    """Adaptive computation time (arXiv 1603.08983): training runs every loop for every token and
    masks; at inference a token leaves after N loops."""

    name = "act"
    expected_loops = 2

    def body_price(self, shape: Any) -> Prices:
        prices = dict(super().body_price(shape))
        once = super().body_price(replace(shape, num_loops=self.expected_loops))
        return {
            part: replace(price, inference=once[part].inference) for part, price in prices.items()
        }


class PonderNet(Looped):
    """PonderNet (arXiv 2107.05407): a loss after every loop, so K heads in training, one after."""

    name = "ponder"

    def price(self, shape: Any) -> Prices:
        prices = dict(super().price(shape))
        heads = prices["head"].applied(shape.num_loops)
        return prices | {"head": replace(heads, inference=prices["head"].inference)}


class MixtureOfDepths(Arm):
    """Mixture-of-Depths (arXiv 2404.02258): every second block is passed by 1/8 of the tokens."""

    name = "depths"
    is_causal = False  # a top-k over a sequence compares a token with later ones
    capacity = Fraction(1, 8)

    def body_price(self, shape: Any) -> Prices:
        whole = block_price(shape.d_model, shape.ffn, shape.context_length)
        routed = share_of_tokens(shape, self.capacity)
        router = plain_price(
            products=2 * shape.context_length * shape.d_model, parameters=shape.d_model
        )
        half = shape.num_layers // 2
        return {"deep": (whole + routed) * half, "shared": router * half}


class MixtureOfRecursions(Arm):
    """Mixture-of-Recursions, expert choice: recursion r is passed by (K - r + 1) / K tokens."""

    name = "recursions"
    is_causal = False

    def body_price(self, shape: Any) -> Prices:
        loops, deep = shape.num_loops, NOTHING
        for r in range(loops):
            one = share_of_tokens(shape, Fraction(loops - r, loops))
            deep = deep + (one if r == 0 else replace(one, parameters=0, active_parameters=0))
        return {"deep": deep * shape.num_layers}


class LoopFormer(Looped):
    """LoopFormer: a long trajectory of L loops and a short one of L / 2 on average, two heads."""

    name = "loopformer"
    is_captured = False  # the short trajectory is drawn anew at every step

    def price(self, shape: Any) -> Prices:
        prices, short = dict(super().price(shape)), super().price(half_as_deep(shape))
        return {
            part: with_second_pass(price, short[part])
            if part in ("deep", "shared", "head")
            else price
            for part, price in prices.items()
        }


def half_as_deep(shape: Sizes) -> Sizes:
    return replace(shape, num_loops=shape.num_loops // 2)


def with_second_pass(price: Price, other: Price) -> Price:
    """A piece that runs once more in training, with the same weights."""
    return replace(
        price,
        forward=price.forward + other.forward,
        backward=price.backward + other.backward,
        expected=price.expected + other.expected,
    )


class RecurrentDepth(Arm):
    """Recurrent depth (arXiv 2502.05171): prelude 2, core 4 x p, coda 2; p is drawn, with mean
    r + 1, and gradients flow through the last 8 passes only."""

    name = "recurrent"
    is_captured = False
    mean_passes, backward_passes = 33, 8

    def body_price(self, shape: Any) -> Prices:
        block = block_price(shape.d_model, shape.ffn, shape.context_length)
        core = block * 4
        forward = core.forward * self.mean_passes
        looped = replace(
            core,
            forward=forward,
            expected=forward,
            inference=forward,
            backward=core.forward * (BACKWARD_PER_FORWARD * self.backward_passes),
        )
        return {"deep": block * 4 + looped}


class ProductKeys(Arm):
    """Product-key memory (arXiv 1907.05242): n^2 values, of which k are read per head."""

    name = "keys"
    heads, keys, query, read = 4, 512, 256, 32
    packs = False  # values are trained at a rate and by statistics of their own

    def body_price(self, shape: Any) -> Prices:
        d, tokens, heads = shape.d_model, shape.context_length, self.heads
        products = 2 * d * heads * self.query
        products += 2 * heads * self.keys * self.query + 2 * heads * self.read * d
        queries = d * heads * self.query
        keys = heads * self.keys * self.query
        used = queries + keys + heads * self.read * d
        stored = queries + keys + self.keys**2 * d
        memory = plain_price(products=tokens * products, parameters=stored, active_parameters=used)
        return {"wide": memory}


def flops(work: Pass) -> int:
    return int(work.flops("full"))


def deep(arm: Arm, shape: Sizes = SIZES) -> Price:
    return arm.body_price(shape)["deep"]


def test_act_pays_all_loops_in_training_and_those_it_uses_at_inference() -> None:
    found = deep(Act())
    assert flops(found.forward) == 2 * flops(found.inference)
    assert flops(found.backward) == 2 * flops(found.forward)


def test_pondernet_pays_a_head_for_every_loop() -> None:
    head = PonderNet().price(SIZES)["head"]
    assert flops(head.forward) == SIZES.num_loops * 2 * 32 * 64 * 256
    assert flops(head.inference) == 2 * 32 * 64 * 256
    assert head.parameters == head_price(256, 64, 32).parameters


def test_mixture_of_depths_has_the_published_factors() -> None:
    plain = block_price(64, 128, 32) * 4
    found = deep(MixtureOfDepths())
    assert found.forward.products / plain.forward.products == 0.5625
    assert found.forward.scores / plain.forward.scores == pytest.approx(0.5078, abs=1e-4)
    assert found.parameters == plain.parameters


@pytest.mark.parametrize(("loops", "products", "scores"), [(2, 0.75, 0.625), (4, 0.625, 0.46875)])
def test_mixture_of_recursions_has_the_published_factors(
    loops: int, products: float, scores: float
) -> None:
    found = deep(MixtureOfRecursions(), replace(SIZES, num_loops=loops))
    whole = block_price(64, 128, 32).applied(loops) * 4
    assert found.forward.products / whole.forward.products == products
    assert found.forward.scores / whole.forward.scores == scores
    assert found.parameters == whole.parameters


def test_loopformer_runs_one_and_a_half_times_the_loops_and_two_heads() -> None:
    prices, once = LoopFormer().price(SIZES), Looped().price(SIZES)
    assert flops(prices["deep"].forward) == 1.5 * flops(once["deep"].forward)
    assert flops(prices["head"].forward) == 2 * flops(once["head"].forward)
    assert flops(prices["deep"].inference) == flops(once["deep"].inference)
    assert total(prices).parameters == total(once).parameters


def test_truncated_backward_is_not_twice_forward() -> None:
    found = deep(RecurrentDepth())
    core = flops(block_price(64, 128, 32).forward) * 4
    ends = flops(block_price(64, 128, 32).forward) * 4
    assert flops(found.forward) == ends + 33 * core
    assert flops(found.backward) == 2 * (ends + 8 * core)
    assert flops(found.training) < 3 * flops(found.forward)


def test_product_keys_store_what_no_token_uses() -> None:
    found = ProductKeys().body_price(replace(SIZES, d_model=1024, context_length=1))["wide"]
    assert found.parameters == 1_048_576 + 524_288 + 268_435_456
    assert flops(found.forward) == 2_097_152 + 1_048_576 + 262_144
    assert found.active_parameters < found.parameters / 100


def test_what_a_router_must_say_is_in_the_contract() -> None:
    assert not MixtureOfDepths().is_causal
    assert not LoopFormer().is_captured
    assert not ProductKeys().packs
    assert Looped().is_causal
