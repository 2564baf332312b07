import itertools

from fnostab.seeding import stream_seed


def test_a_stream_is_the_same_on_every_machine():
    assert stream_seed(0, "initialisation") == 1232821161063638841
    assert stream_seed(7, "train", "noise", "0") == 8560264841302789285


def test_streams_of_other_seeds_and_names_are_others():
    seeds = [
        stream_seed(seed, *names)
        for seed in range(50)
        for names in ((), ("a",), ("b",), ("a", "b"), ("ab",), ("b", "a"), ("a", "b", ""))
    ]
    assert len(set(seeds)) == len(seeds)


def test_seeds_suit_torch_and_fill_the_range():
    seeds = [stream_seed(seed, "x") for seed in range(200)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert min(seeds) < 2**58
    assert max(seeds) > 2**62


def test_bits_of_neighbouring_seeds_are_unrelated():
    pairs = itertools.pairwise(stream_seed(seed, "x") for seed in range(200))
    differing = [(a ^ b).bit_count() for a, b in pairs]
    assert 28 < sum(differing) / len(differing) < 35  # of 63 bits, half
