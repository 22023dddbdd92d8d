"""Checks before objects are built."""

import pytest

from muq_plugins.errors import UserError
from muq_plugins.experiment import load_hparams


def test_all_placeholders_are_reported_at_once():
    text = "a: !PLACEHOLDER\nb: {c: !PLACEHOLDER }\nd: [!PLACEHOLDER , !PLACEHOLDER ]\n"
    message = r"--a VALUE --b\.c VALUE --d VALUE$"
    with pytest.raises(UserError, match=message):
        load_hparams(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: !new:torch.nn.Liner [1, 2]",
            "a: there is no class .* torch.nn.Liner",
        ),
        ("a: !name:nope.nope", "a: there is no class or function nope.nope"),
        (
            "a: {b: !new:torch.nn.ReLU {inplac: 1}}",
            "a.b: torch.nn.ReLU has no arg",
        ),
        ("a: !name:torch.nn.GELU {aproximate: 1}", "key is 'a.approximate'"),
        ("a: !new:torch.nn.Linear {in_features: 1}", "missing a required argument"),
        ("a: !new:torch.nn.ReLU [1, 2, 3]", r"too many positional.*it takes \(inplace"),
        ("a: !apply:random.seed {sed: 1}", "random.seed has no argument 'sed'"),
    ],
)
def test_wrong_callables(text, message):
    with pytest.raises(UserError, match=message):
        load_hparams(text)


def test_right_callables():
    hparams = load_hparams(
        "a: !new:torch.nn.Linear [2, 3]\n"
        "b: !name:torch.nn.Linear {out_features: 3}\n"
        "c: !new:collections.Counter {x: 1}\n"
        "d: !apply:math.sqrt [4]\n"
        "e: !applyref:sorted {_args: [[2, 1]], _kwargs: {reverse: False}}\n"
        "f: !module:math\n"
        "__g: !apply:random.seed [1]\n"
        "h: (1, 2)\n"
    )
    assert hparams["a"].out_features == 3
    assert hparams["b"](in_features=1).in_features == 1
    assert hparams["c"]["x"] == 1
    assert hparams["d"] == 2
    assert hparams["e"] == [1, 2]
    assert hparams["f"].pi > 3
    assert hparams["h"] == (1, 2)
    assert "__g" not in hparams
